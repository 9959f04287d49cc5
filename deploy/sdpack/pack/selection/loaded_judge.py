"""The judges of a catalog, each loaded on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpack.documents.prompts import CatalogPrompt
from sdpack.documents.quality import JudgeModel, ReaderModel
from sdpack.documents.record import SIMILARITY
from sdpack.documents.source import Source
from sdpack.engines.detect import memory_bytes
from sdpack.errors import CatalogError, ProfileError, SourceError
from sdpack.evaluate.judge_check import check_responds
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.question_answering import (
    YES_PROBABILITY,
    QuestionAnswering,
    answers_questions,
)
from sdpack.evaluate.runner import Scorer
from sdpack.evaluate.scorers import Judged, Score, panel_score
from sdpack.evaluate.text_reading import READ_TEXT, TextReading, installed_reader
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.source import is_here, remote_bytes
from sdpack.store.artifacts import digest, files_digest
from sdpack.units import format_bytes

FP32_BYTES = 4  # of a weight: judges compute in fp32
OPTIONAL_SHARE = 1 / 4  # of the machine's memory that an optional judge may take


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
        """A model that compares embeddings, with its tokenizer.

        Raises:
            SourceError: it cannot be loaded.
        """
        from sdpack.evaluate.clip import panel_of

        return panel_of(self._source, self._tokenizer)

    @cached_property
    def score(self) -> Score:
        """Scores images by captions; the model is loaded for it.

        Raises:
            SourceError: it cannot be loaded, gives the same score to everything, or is optional and
                too large.
        """
        self._check_size()
        score: Score = (
            QuestionAnswering(self._source).scores
            if self.answers_questions
            else panel_score(self.panel, self.model.views)
        )
        check_responds(score, f"the judge {self._source}")
        return score

    @cached_property
    def scorer(self) -> Scorer:
        """Scores the images of mixes; the model is loaded at the first of them."""
        if self.answers_questions:
            content, metric = QuestionAnswering(self._source).content, YES_PROBABILITY
        else:
            content, metric = self.content, SIMILARITY
        return Judged(lambda pictures, captions: self.score(pictures, captions), content, metric)

    @cached_property
    def answers_questions(self) -> bool:
        """Whether it is a vision-language model."""
        return answers_questions(self._source)

    @property
    def licence(self) -> str:
        """The name of its licence; empty if the catalog does not state it."""
        return self.model.licence

    @property
    def is_optional(self) -> bool:
        """Whether a build goes on without it where it cannot be fetched or is too large."""
        return self.model.optional

    def judges(self, prompt: CatalogPrompt) -> bool:
        """Whether it can say something about the images of a prompt."""
        return True

    def check(self) -> None:
        """Check that it can be used, without loading it.

        Raises:
            CatalogError: it has no tokenizer; or it is a vision-language model, and has a tokenizer
                or views.
            SourceError: its files cannot be fetched, or it is optional and too large.
        """
        self._check_size()
        if not self.answers_questions:
            self.folder(self._tokenizer_source)
        elif self.model.views or self.model.tokenizer is not None:
            raise CatalogError(
                f"the judge {self.model.source} is a vision-language model, which takes no views "
                "and no tokenizer; leave them out"
            )

    def _check_size(self) -> None:
        """Check that an optional judge is small enough, before it is fetched if that can be."""
        if not self.is_optional:
            return
        try:
            memory = memory_bytes()
        except ProfileError as cause:
            raise SourceError(f"it cannot be told whether it fits: {cause}") from cause
        source = self.model.source
        if source.hub is not None and not is_here(source, Path()):
            # At least this: a repository may keep weights in two bytes instead of four.
            _check_fits(remote_bytes(source) or 0, memory)
        _check_fits(FP32_BYTES * Checkpoint(self._source).stored_numbers, memory)

    @property
    def _source(self) -> Path:
        return self.folder(self.model.source)

    @property
    def _tokenizer(self) -> Path:
        return self.folder(self._tokenizer_source)

    @property
    def _tokenizer_source(self) -> Source:
        if self.model.tokenizer is None:
            raise CatalogError(
                f"the judge {self.model.source} needs a tokenizer; name it beside its source"
            )
        return self.model.tokenizer

    @cached_property
    def content(self) -> str:
        """Hash of model, tokenizer and views."""
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
    is_optional = False

    @cached_property
    def scorer(self) -> Scorer:
        """Scores images by the text in them."""
        wanted = {each.text: each.rendered for each in self.prompts if each.rendered}
        reading = TextReading(wanted)
        return Judged(reading.scores, reading.content, READ_TEXT, reads_captions=False)

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
        installed_reader()


def _check_fits(weights: int, memory: int) -> None:
    if weights > memory * OPTIONAL_SHARE:
        raise SourceError(
            f"its weights take {format_bytes(weights)} in fp32, more than a quarter of this "
            f"machine's memory ({format_bytes(memory)})"
        )


OtherJudge = LoadedJudge | ReadingJudge
