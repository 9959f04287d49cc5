"""Scores of pictures: by a judge, or by their similarity to fp32 pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from sdpack.documents.quality import View
from sdpack.documents.record import FIDELITY, SIMILARITY
from sdpack.domain.arrays import Float64Array
from sdpack.evaluate.metrics import Panel, channels_first, similarity, structural_similarity
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.evaluate.views import mean_over
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import digest

Score = Callable[[Pictures, Sequence[str]], Float64Array]
"""Scores images, uint8 (N, H, W, 3), each with a text of its own: float64 (N,)."""


def panel_score(panel: Panel, views: Sequence[View] = ()) -> Score:
    """Return a function that scores pictures by their similarity to captions."""

    def score(pictures: Pictures, captions: Sequence[str]) -> Float64Array:
        def of_view(given: Pictures) -> Float64Array:
            pixels = torch.from_numpy(np.ascontiguousarray(given))
            return similarity(panel, panel.embed_features(panel.features(pixels)), captions)

        return mean_over(views, pictures, of_view)

    return score


class Judged:
    """Scores by a judge that sees one picture and one text at a time.

    Args:
        score: the judge.
        judge_content: one hash of everything that its scores depend on, except pictures and texts.
        metric: the kind of the ledger's rows with its scores.
        reads_captions: whether the texts are the captions of the pictures; if not, their prompts.
    """

    def __init__(
        self,
        score: Score,
        judge_content: str,
        metric: str = SIMILARITY,
        reads_captions: bool = True,
    ) -> None:
        self.metric = metric
        self.reads_captions = reads_captions
        self._score = score
        self._content = judge_content

    def content(self, mix: PipelineSpec) -> str:
        return self._content

    def score(
        self,
        mix: PipelineSpec,
        pictures: Pictures,
        numbers: Sequence[int],
        runner: EvaluationRunner,
    ) -> list[float]:
        task = runner.task
        texts = [task.caption(n) if self.reads_captions else task.prompts[n] for n in numbers]
        found: list[float] = self._score(pictures, texts).tolist()
        return found


class Faithful:
    """How similar each picture is to that of the same parts in fp32: structural similarity.

    This is not quality: it does not say whether the fp32 picture is good, and it compares only
    variants of the same parts. The last fp32 pictures are kept.
    """

    metric = FIDELITY
    reads_captions = False

    def __init__(self) -> None:
        self._wanted: tuple[tuple[str, ...], Pictures] | None = None

    def content(self, mix: PipelineSpec) -> str:
        return digest(_reference(mix).contents)

    def score(
        self,
        mix: PipelineSpec,
        pictures: Pictures,
        numbers: Sequence[int],
        runner: EvaluationRunner,
    ) -> list[float]:
        wanted = self._pictures(_reference(mix), numbers, runner)
        found: list[float] = structural_similarity(
            channels_first(pictures), channels_first(wanted)
        ).tolist()
        return found

    def _pictures(
        self, mix: PipelineSpec, numbers: Sequence[int], runner: EvaluationRunner
    ) -> Pictures:
        key = (digest(mix.contents), *map(str, numbers))
        if self._wanted is None or self._wanted[0] != key:
            self._wanted = (key, runner.pictures(mix, numbers))
        return self._wanted[1]


def _reference(mix: PipelineSpec) -> PipelineSpec:
    assert mix.reference is not None
    return mix.reference
