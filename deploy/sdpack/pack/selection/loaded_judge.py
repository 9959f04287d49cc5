"""The judges of a catalog, each loaded on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpack.documents.prompts import CatalogPrompt
from sdpack.documents.quality import JudgeModel, ReaderModel
from sdpack.documents.source import Source
from sdpack.errors import CatalogError
from sdpack.evaluate.judge_check import check_responds
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.runner import Scorer
from sdpack.evaluate.scorers import Judged, panel_score
from sdpack.export.checkpoint import Checkpoint
from sdpack.store.artifacts import digest, files_digest


@dataclass
class LoadedJudge:
    """A judge of a catalog.

    Attributes:
        model: its entry in the catalog.
        folder: gives the folder of a source's files on this machine.
    """

    model: JudgeModel
    folder: Callable[[Source], Path]

    @cached_property
    def panel(self) -> Panel:
        """The model with its tokenizer.

        Raises:
            SourceError: it cannot be loaded, or gives the same score to everything.
        """
        from sdpack.evaluate.clip import panel_of

        panel = panel_of(self._source, self._tokenizer)
        check_responds(panel_score(panel), f"the judge {self._source}")
        return panel

    @cached_property
    def scorer(self) -> Scorer:
        """Scores images by it."""
        from sdpack.evaluate.question_answering import QuestionAnswering, answers_questions

        if answers_questions(self._source):
            if self.model.views:
                raise CatalogError(
                    f"the judge {self.model.source} is a vision-language model, which takes no "
                    "views; leave them out"
                )
            return QuestionAnswering(self._source, files_digest(self._source))
        return Judged(lambda: self.panel, self._content, self.model.views)

    @property
    def licence(self) -> str:
        """The name of its licence; empty if the catalog does not state it."""
        return self.model.licence

    def judges(self, prompt: CatalogPrompt) -> bool:
        """Whether it can say something about the images of a prompt."""
        return True

    def check(self) -> None:
        """Check that it can be used, without loading it.

        Raises:
            CatalogError: it has no tokenizer, or views that it cannot have.
            SourceError: its files cannot be fetched.
        """
        if isinstance(self.scorer, Judged):
            _ = self._tokenizer

    @property
    def _source(self) -> Path:
        return self.folder(self.model.source)

    @property
    def _tokenizer(self) -> Path:
        if self.model.tokenizer is None:
            raise CatalogError(
                f"the judge {self.model.source} needs a tokenizer; name it beside its source"
            )
        return self.folder(self.model.tokenizer)

    @cached_property
    def _content(self) -> str:
        inputs: dict[str, Any] = {
            "judge": Checkpoint(self._source).content,
            "tokenizer": files_digest(self._tokenizer),
        }
        if self.model.views:
            inputs["views"] = [view.model_dump() for view in self.model.views]
        return digest(inputs)


@dataclass(frozen=True)
class ReadingJudge:
    """A judge that reads the text in images.

    Attributes:
        model: its entry in the catalog.
        prompts: the catalog's prompts, of which it judges those that ask for a text.
    """

    model: ReaderModel
    prompts: Sequence[CatalogPrompt]

    @cached_property
    def scorer(self) -> Scorer:
        """Scores images by the text in them."""
        from sdpack.evaluate.text_reading import TextReading

        return TextReading({each.text: each.rendered for each in self.prompts if each.rendered})

    @property
    def licence(self) -> str:
        """The name of the reader's licence."""
        return self.model.licence

    def judges(self, prompt: CatalogPrompt) -> bool:
        """Whether a prompt asks for a text."""
        return bool(prompt.rendered)

    def check(self) -> None:
        """Check that its package is installed.

        Raises:
            MissingPackageError: it is not.
        """
        from sdpack.evaluate.text_reading import installed_reader

        installed_reader()


OtherJudge = LoadedJudge | ReadingJudge
