"""Who does independent jobs: the calling process, worker processes, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sdpack.errors import InputError
from sdpack.workers.jobs import JobResult, WorkerJob


class ExecutorKind(StrEnum):
    """Where workers run."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True)
class WorkerOptions:
    """The workers that a user asks for.

    Attributes:
        count: number of worker processes; None for as many as cores and memory allow.
        kind: whether they run on this machine, or on a Ray cluster.
        address: of the Ray cluster; None starts one on this machine.
    """

    count: int | None = None
    kind: ExecutorKind = ExecutorKind.LOCAL
    address: str | None = None

    def check(self) -> None:
        """Check that the options fit together.

        Raises:
            InputError: an address is given for an executor that has none.
        """
        if self.address is not None and self.kind is not ExecutorKind.RAY:
            raise InputError(f"--address {self.address} is only for --executor ray; give both")


USUAL_WORKERS = WorkerOptions()


class Executor(Protocol):
    """Does jobs ahead of the code that needs their results.

    The results are in the store, and in what the jobs return. The caller then runs the same code as
    without an executor, and finds them. What an executor did not do, or failed to do, the caller
    does itself.

    Attributes:
        has_gpus: whether it gives a GPU to the jobs that need one.
        is_cluster: whether its workers may be on other machines. They then need not share this
            machine's memory, and as there may be more of them than jobs, idle ones do jobs ahead.
    """

    @property
    def has_gpus(self) -> bool: ...
    @property
    def is_cluster(self) -> bool: ...

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        """Do the jobs, and yield their results as they come.

        Raises:
            WorkerError: worker processes cannot be started, or die.
        """
        ...

    def rest(self) -> None:
        """Free the memory that is held between jobs; the next jobs may begin later for it."""
        ...


class OneProcess:
    """Does no jobs ahead: everything is done in the calling process, with all its threads."""

    has_gpus = False
    is_cluster = False

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        """Do nothing."""
        return iter(())

    def rest(self) -> None:
        """Do nothing."""
