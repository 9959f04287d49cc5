"""Scores of mixes, drawn ahead where they are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.domain.arrays import Float64Array
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.evaluate.pipeline_spec import EvaluationSet
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.score_drawing import ScoreDrawing
from sdpack.workers.jobs import WorkerJob


def mix(name: str) -> Mix:
    return Mix.of(Variant(Role.DENOISER, name, Precision.FP16))


class Runner:
    """Scores a mix by its name and the prompt; `known` holds what is scored already."""

    def __init__(self) -> None:
        self.known: set[tuple[str, tuple[int, ...]]] = set()
        self.drawn = 0

    def chunks(self, numbers: Sequence[int]) -> list[list[int]]:
        return EvaluationSet([], 64, 64).chunks(numbers)

    def knows(self, spec: str, numbers: Sequence[int]) -> bool:
        return (spec, tuple(numbers)) in self.known

    def scores(self, specs: Sequence[str], numbers: Sequence[int], step: Any) -> Float64Array:
        new = [spec for spec in specs if not self.knows(spec, numbers)]
        self.drawn += len(new) * len(numbers)
        return np.array([[float(spec) + number for number in numbers] for spec in specs])


class Drawing:
    def __init__(self, on_gpu: bool = False, is_cluster: bool = False) -> None:
        self.runner = Runner()
        self.jobs: list[WorkerJob] = []
        self.said: list[str] = []
        self.context = SimpleNamespace(
            workers_can_draw=not on_gpu,
            on_cluster=is_cluster,
            say=self.said.append,
            prepare=self.prepare,
        )

    def prepare(self, jobs: Sequence[WorkerJob], step: Any) -> None:
        """Do the jobs, as worker processes would."""
        self.jobs += jobs
        self.runner.known |= {job.task for job in jobs}

    def job(self, mixes: Sequence[Mix], numbers: Sequence[int]) -> Iterator[WorkerJob]:
        for each in mixes:
            name = each.denoiser.candidate
            yield WorkerJob("drawing", name, (name, tuple(numbers)))

    def scores(
        self, names: Sequence[str], numbers: Sequence[int], ahead: Sequence[int] = ()
    ) -> Float64Array:
        drawing = ScoreDrawing(
            cast(Any, self.context),
            cast(Any, self.runner),
            lambda each: cast(Any, each.denoiser.candidate),
            self.job,
        )
        return drawing.scores([mix(name) for name in names], numbers, "drawing some", ahead)


def test_only_what_is_missing_is_drawn_ahead_and_every_image_counts_once() -> None:
    drawing = Drawing()
    drawing.runner.known.add(("1", tuple(range(16))))
    scores = drawing.scores(["1", "2"], range(32))
    assert scores.tolist() == [[1.0 + n for n in range(32)], [2.0 + n for n in range(32)]]
    first, second = tuple(range(16)), tuple(range(16, 32))
    assert [job.task for job in drawing.jobs] == [("2", first), ("1", second), ("2", second)]
    assert drawing.runner.drawn == 48
    assert drawing.said[0] == "drawing some"


@pytest.mark.parametrize("on_gpu", [True, False])
def test_on_a_gpu_one_process_draws(on_gpu: bool) -> None:
    drawing = Drawing(on_gpu)
    assert drawing.scores(["1"], range(16)).shape == (1, 16)
    assert bool(drawing.jobs) is not on_gpu
    assert drawing.runner.drawn == 16


@pytest.mark.parametrize("is_cluster", [False, True])
def test_idle_workers_of_a_cluster_draw_the_next_round(is_cluster: bool) -> None:
    drawing = Drawing(is_cluster=is_cluster)
    drawing.scores(["1", "2"], range(16), ahead=range(16, 48))
    ahead = [job.task for job in drawing.jobs if job.is_ahead]
    chunks = [tuple(range(16, 32)), tuple(range(32, 48))]
    expected = [(name, chunk) for chunk in chunks for name in "12"]
    assert ahead == (expected if is_cluster else [])
    assert drawing.runner.drawn == 32, "nobody asked for those ahead"
