"""Jobs for workers, and their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sdpack.progress import Say

Handle = Callable[[Any, Say], Any]
"""Does the task of a job; called with the task, and with a function for lines of progress."""
OpenHandle = Callable[[], Handle]
"""Called once in each worker. It is pickled, as are the tasks and the results."""


@dataclass(frozen=True)
class WorkerJob:
    """A piece of work for a worker.

    Attributes:
        name: what it does, in words, such as "drawing 64 prompts with s/fp16 + m/w8 + kl/fp16".
        group: jobs of a group use the same large files.
        task: passed to the worker's `Handle`.
        needs_gpu: whether only a worker with a GPU can do it.
        is_ahead: whether it is done only by workers that would be idle, and not waited for, as its
            result is likely to be needed soon.
        key: the same for jobs that do the same; "" if there is no other.
    """

    name: str
    group: str
    task: Any
    needs_gpu: bool = False
    is_ahead: bool = False
    key: str = ""


EARLIER = -1


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    Attributes:
        place: the job's place in the list that was given to `Executor.run`; EARLIER if it was in
            one that was given before.
        value: what the worker returned; None if it failed.
        error: what it raised, in words; None if it did not fail.
    """

    place: int
    value: Any = None
    error: str | None = None


def done(handle: Handle, place: int, task: Any, say: Say) -> JobResult:
    """Do a task; what it raises becomes the result, as the caller then does it, and fails too."""
    try:
        return JobResult(place, handle(task, say))
    except Exception as error:
        return JobResult(place, error=f"{type(error).__name__}: {error}")
