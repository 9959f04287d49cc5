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


def panel_score(
    panel: Panel, views: Sequence[View] = ()
) -> Callable[[Pictures, Sequence[str]], Float64Array]:
    """Return a function that scores pictures, uint8 (N, H, W, 3), of N captions: (N,)."""

    def score(pictures: Pictures, captions: Sequence[str]) -> Float64Array:
        def of_view(given: Pictures) -> Float64Array:
            pixels = torch.from_numpy(np.ascontiguousarray(given))
            return similarity(panel, panel.embed_features(panel.features(pixels)), captions)

        return mean_over(views, pictures, of_view)

    return score


class Judged:
    """How well each picture shows its prompt, by a judge that sees one picture at a time.

    Args:
        panel: loads the judge; called when there is something to judge.
        judge_content: one hash of the judge, its tokenizer and the views.
        views: the forms in which it sees each picture.
    """

    metric = SIMILARITY
    reads_captions = True

    def __init__(
        self, panel: Callable[[], Panel], judge_content: str, views: Sequence[View] = ()
    ) -> None:
        self._panel = panel
        self._content = judge_content
        self._views = views

    def content(self, mix: PipelineSpec) -> str:
        return self._content

    def score(
        self,
        mix: PipelineSpec,
        pictures: Pictures,
        numbers: Sequence[int],
        runner: EvaluationRunner,
    ) -> list[float]:
        score = panel_score(self._panel(), self._views)
        found: list[float] = score(pictures, [runner.task.caption(i) for i in numbers]).tolist()
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
