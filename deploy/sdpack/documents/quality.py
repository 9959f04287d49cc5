"""How a catalog's images are scored: judges, prompts and real images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from sdpack.documents.document import Document, Name
from sdpack.documents.source import Source


class View(Document):
    """A form in which a judge sees an image.

    Attributes:
        blur: standard deviation of a Gaussian blur, as a share of the image's height.
        noise: standard deviation of noise that is added afterwards, in levels of 255.
    """

    blur: float = Field(default=0.0, ge=0.0, le=0.1)
    noise: float = Field(default=0.0, ge=0.0, le=64.0)


class JudgeModel(Document):
    """A model that scores how well an image shows its prompt.

    It is a CLIP, a SigLIP or one of the zoo's, which compare embeddings; or a vision-language model
    of transformers, which is asked whether the image shows the prompt.

    Attributes:
        tokenizer: of its text tower; a vision-language model needs none, as it has a processor.
        views: the forms in which it sees each image; its score is the mean over them. Without
            views, it sees the image itself.
        licence: name of its licence; empty if the catalog does not state it.
        optional: whether a build goes on without it where it cannot be fetched, or where its
            weights in fp32 are more than a quarter of the machine's memory. The judge that decides
            is never optional.
    """

    source: Source
    tokenizer: Source | None = None
    views: tuple[View, ...] = ()
    licence: str = ""
    optional: bool = False


class ReaderModel(Document):
    """A reader of the text in images, which judges only prompts that ask for some.

    Attributes:
        ocr: the package that reads.
    """

    ocr: Literal["rapidocr"]
    licence: str = "Apache-2.0"


OtherJudge = JudgeModel | ReaderModel


class Quality(Document):
    """How a mix's images are scored.

    The race is decided by the scores of `judge`. The `other_judges` score the images of the race
    afterwards, and the evidence says where they disagree.

    Attributes:
        judge: model that scores how well an image shows its prompt; needs `tokenizer`. Without a
            judge, a variant is scored by how close its images are to its own fp32 images.
        views: the forms in which the judge sees each image; its score is the mean over them.
            Without views, it sees the image itself.
        judge_licence: name of the licence of `judge`; empty if the catalog does not state it.
        other_judges: by name.
        prompts, calibration, samples: JSON lines files; each line is an object with a "text".
        real_images: one image file with a grid of real images in the order of the prompts,
            `real_columns` per row; None disables the distance from real images.
    """

    judge: Source | None = None
    tokenizer: Source | None = None
    views: tuple[View, ...] = ()
    judge_licence: str = ""
    other_judges: Mapping[Name, OtherJudge] = {}
    prompts: Path
    calibration: Path
    samples: Path
    real_images: Path | None = None
    real_columns: PositiveInt = 24

    @model_validator(mode="after")
    def _judges_whole(self) -> Quality:
        if (self.judge is None) != (self.tokenizer is None):
            raise ValueError("judge and tokenizer belong together; give both, or neither")
        if self.judge is None and self.real_images is not None:
            raise ValueError("real_images need a judge, whose features are compared; give one")
        if self.judge is None and self.views:
            raise ValueError("views are what a judge sees; give one, or leave them out")
        if self.judge is None and self.other_judges:
            raise ValueError(
                f"other_judges: {next(iter(self.other_judges))} needs a judge beside it whose "
                "scores decide; name one of them under judge"
            )
        return self

    @property
    def primary(self) -> JudgeModel | None:
        """The judge whose scores decide; None if there is none."""
        if self.judge is None or self.tokenizer is None:
            return None
        return JudgeModel(
            source=self.judge,
            tokenizer=self.tokenizer,
            views=self.views,
            licence=self.judge_licence,
        )

    @property
    def judges(self) -> Mapping[str, JudgeModel]:
        """All judges with weights, by their key in the catalog, the one that decides first."""
        primary = {} if self.primary is None else {"judge": self.primary}
        others = {
            f"other_judges.{name}": judge
            for name, judge in self.other_judges.items()
            if isinstance(judge, JudgeModel)
        }
        return {**primary, **others}
