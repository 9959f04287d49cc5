"""The context that all steps of a build share: request, store, ledger and progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sdpack.documents.catalog import Catalog
from sdpack.documents.profile import Profile
from sdpack.domain.precision import Precision, Runtime
from sdpack.pack.request import BuildRequest
from sdpack.progress import Say, Step, unheard
from sdpack.quantization.schemes import ABILITIES, Abilities
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger
from sdpack.workers.executor import Executor, OneProcess
from sdpack.workers.jobs import EARLIER, WorkerJob


@dataclass(frozen=True)
class BuildContext:
    """The context that all steps of a build share.

    Attributes:
        store: keeps the files that are made.
        ledger: keeps the figures that are measured.
        say: called with a line of text at each step.
        executor: does independent jobs ahead, in other processes.
    """

    request: BuildRequest
    store: Store
    ledger: Ledger
    say: Say = lambda _: None
    executor: Executor = field(default_factory=OneProcess)

    @property
    def profile(self) -> Profile:
        """The profile of the request."""
        return self.request.profile

    @property
    def drawn_on(self) -> Runtime:
        """The runtime that draws images on this machine."""
        return self.request.drawn_on

    @property
    def runtime(self) -> Runtime:
        """The runtime of the profile."""
        return self.request.runtime

    @property
    def catalog(self) -> Catalog:
        """The catalog of the request."""
        return self.request.catalog

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions to try."""
        return self.request.precisions

    @property
    def abilities(self) -> Abilities:
        """The schemes that the runtime keeps packed in memory."""
        return ABILITIES[self.runtime]

    @property
    def workers_can_draw(self) -> bool:
        """Whether the executor can draw images: on a GPU, only if it gives one to each job."""
        return self.executor.has_gpus or not self.drawn_on.on_gpu

    @property
    def on_cluster(self) -> bool:
        """Whether the executor's workers may be on other machines."""
        return self.executor.is_cluster

    def prepare(self, jobs: Sequence[WorkerJob], step: Step = unheard) -> None:
        """Have the executor do jobs ahead, and record the rows they return.

        A job that fails is reported, and left to the code that needs its result, which then fails
        where it belongs. A single job is left to it as well: this process has all threads for it.

        Args:
            step: called with the number of finished jobs, and of all jobs.

        Raises:
            WorkerError: worker processes cannot be started, or die.
        """
        awaited = sum(not job.is_ahead for job in jobs)
        if awaited < 2:
            return
        done = 0
        for result in self.executor.run(jobs):
            job = None if result.place == EARLIER else jobs[result.place]
            if result.error is not None and job is not None:
                self.say(f"{job.name} failed in a worker: {result.error}")
            for row in result.value or ():
                self.ledger.record(row.kind, row.inputs, row.value)
            if job is not None and not job.is_ahead:
                done += 1
                step(done, awaited)
