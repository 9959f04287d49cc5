"""Scores of mixes on prompts; several processes draw the images that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.evaluate.pipeline_spec import PipelineSpec
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import Mix
from sdpack.progress import Step, counted, within
from sdpack.workers.jobs import WorkerJob


@dataclass(frozen=True)
class ScoreDrawing:
    """Draws and scores mixes.

    Attributes:
        spec: gives the pipeline that is run for a mix.
        jobs: gives the jobs that draw mixes on one chunk of prompts.
    """

    context: BuildContext
    runner: EvaluationRunner
    spec: Callable[[Mix], PipelineSpec]
    jobs: Callable[[Sequence[Mix], Sequence[int]], Iterable[WorkerJob]]

    def scores(
        self, mixes: Sequence[Mix], numbers: Sequence[int], doing: str, ahead: Sequence[int] = ()
    ) -> Float64Array:
        """The scores of these mixes on these prompts: float64 (mixes, prompts).

        Args:
            numbers: the numbers of the prompts.
            doing: what the progress says.
            ahead: the prompts that idle workers of a cluster draw, without being waited for.
        """
        say = self.context.say
        say(doing)
        specs = [self.spec(mix) for mix in mixes]
        step, chunks = counted(say, doing), self.runner.chunks(numbers)
        if self.context.workers_can_draw:
            self._draw_in_workers(mixes, chunks, self.runner.chunks(ahead), step)
        scores = [
            self.runner.scores(specs, chunk, within(step, place, len(chunks)))
            for place, chunk in enumerate(chunks)
        ]
        return np.concatenate(scores, axis=1)

    def _draw_in_workers(
        self,
        mixes: Sequence[Mix],
        chunks: Sequence[Sequence[int]],
        ahead: Sequence[Sequence[int]],
        step: Step,
    ) -> None:
        """Draw in several processes the images that are not scored yet."""
        missing = self._missing(mixes, chunks)
        jobs = [job for chunk, new in missing for job in self.jobs(new, chunk)]
        if self.context.on_cluster:
            later = self._missing(mixes, ahead)
            jobs += [
                replace(job, is_ahead=True) for chunk, new in later for job in self.jobs(new, chunk)
            ]
        self.context.prepare(jobs, step)
        self.runner.drawn += sum(
            len(chunk)
            for chunk, new in missing
            for mix in new
            if self.runner.knows(self.spec(mix), chunk)
        )

    def _missing(
        self, mixes: Sequence[Mix], chunks: Sequence[Sequence[int]]
    ) -> list[tuple[Sequence[int], list[Mix]]]:
        """Each chunk, and the mixes that are not scored on it."""
        specs = {mix: self.spec(mix) for mix in mixes}
        return [
            (chunk, [mix for mix in mixes if not self.runner.knows(specs[mix], chunk)])
            for chunk in chunks
        ]
