"""How the images of a catalog are judged: by its judges or against fp32, and by real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from sdpack.documents.catalog_files import LocatedCatalog
from sdpack.documents.quality import JudgeModel, Quality, ReaderModel
from sdpack.documents.source import Source
from sdpack.errors import CatalogError, SourceError
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.runner import Scorer
from sdpack.evaluate.scorers import Faithful, Score
from sdpack.pack.real_images import real_images
from sdpack.pack.selection.loaded_judge import LoadedJudge, OtherJudge, ReadingJudge
from sdpack.progress import Say
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import file_sha256


@dataclass
class CatalogJudge:
    """The judges and the real images of a catalog, each loaded once.

    Attributes:
        folder: gives the folder of a source's files on this machine.
    """

    located: LocatedCatalog
    folder: Callable[[Source], Path]

    @property
    def _quality(self) -> Quality:
        catalog = self.located.catalog
        return catalog.quality

    @property
    def is_judged(self) -> bool:
        """Whether the catalog has a judge; if not, mixes are compared with their parts in fp32."""
        return self._quality.judge is not None

    def check(self, say: Say) -> None:
        """Check that the judges can be used, without loading them; say which optional one cannot.

        Raises:
            CatalogError: a judge cannot be used as the catalog does.
            SourceError: its files cannot be fetched, and it is not optional.
            MissingPackageError: what it needs is not installed.
        """
        if self._primary is not None:
            self._primary.check()
            if self._primary.answers_questions:
                raise CatalogError(
                    f"quality.judge: {self._quality.judge} is a vision-language model; name it "
                    "under other_judges, and a CLIP or SigLIP as the judge"
                )
        for name, judge in self.others.items():
            try:
                judge.check()
            except SourceError as error:
                if not judge.is_optional:
                    raise
                say(f"the judge {name} will be left out: {error}")

    @cached_property
    def scorer(self) -> Scorer:
        """The scorer whose scores decide."""
        return Faithful() if self._primary is None else self._primary.scorer

    @cached_property
    def others(self) -> Mapping[str, OtherJudge]:
        """The other judges, by name."""
        judges = self._quality.other_judges
        return {name: self._other(model) for name, model in judges.items()}

    def _other(self, model: JudgeModel | ReaderModel) -> OtherJudge:
        if isinstance(model, ReaderModel):
            return ReadingJudge(model, self.located.prompt_list(self._quality.prompts))
        return LoadedJudge(model, self.folder)

    @property
    def primary_content(self) -> str:
        """Hash of the judge whose scores decide, and of what it sees of an image."""
        assert self._primary is not None
        return self._primary.content

    @property
    def primary_score(self) -> Score:
        """The judge whose scores decide, as a function of images and captions; it is loaded."""
        assert self._primary is not None
        return self._primary.score

    @property
    def panel(self) -> Panel:
        """The judge whose scores decide, loaded."""
        assert self._primary is not None
        return self._primary.panel

    @cached_property
    def _primary(self) -> LoadedJudge | None:
        model = self._quality.primary
        return None if model is None else LoadedJudge(model, self.folder)

    @property
    def has_real_images(self) -> bool:
        """Whether the catalog has real images for its prompts."""
        return self._quality.real_images is not None

    @property
    def real_content(self) -> str | None:
        """Hash of the real images; None if there are none."""
        if not self.has_real_images:
            return None
        return file_sha256(self.located.path(self._real_images))

    @cached_property
    def real_features(self) -> torch.Tensor:
        """The judge's features of the real images: float32 (images, features)."""
        return self.features(real_images(self.located, self._real_images))

    def features(self, images: Pictures) -> torch.Tensor:
        """The judge's features of images: float32 (images, features)."""
        return self.panel.features(torch.from_numpy(images))

    @property
    def _real_images(self) -> Path:
        sheet = self._quality.real_images
        assert sheet is not None
        return sheet
