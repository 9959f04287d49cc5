"""Jobs by their names, for as long as anybody may ask for them."""

from __future__ import annotations

import time

from sdpack.serve.limits import Limits
from sdpack.serve.work import Job, Status


class Jobs:
    """Those that are under way, and the last that have ended."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: dict[str, Job] = {}

    def add(self, job: Job) -> None:
        self._forget()
        self._jobs[job.id] = job

    def find(self, name: str) -> Job | None:
        self._forget()
        return self._jobs.get(name)

    @property
    def unfetched(self) -> bool:
        """Whether there are pictures that nobody has seen yet."""
        done = (job for job in self._jobs.values() if job.status is Status.DONE)
        return any(not picture.fetched for job in done for picture in job.pictures)

    def _forget(self) -> None:
        """Drop what has been kept long enough, and the oldest where there is too much."""
        now, limits = time.monotonic(), self._limits
        ended = [job for job in self._jobs.values() if job.status.ended]
        kept, taken = 0, 0
        for job in reversed(ended):
            kept, taken = kept + 1, taken + job.bytes
            age = now - (job.ended or now)
            if age > limits.keep_s or kept > limits.keep_jobs or taken > limits.keep_bytes:
                del self._jobs[job.id]
