"""Who does independent jobs: the calling process, or worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from sdpack.workers.pool import JobResult, WorkerJob


class Executor(Protocol):
    """Does jobs ahead of the code that needs their results.

    The results are in the store, and in what the jobs return. The caller then runs the same code as
    without an executor, and finds them. What an executor did not do, or failed to do, the caller
    does itself.
    """

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

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        """Do nothing."""
        return iter(())

    def rest(self) -> None:
        """Do nothing."""
