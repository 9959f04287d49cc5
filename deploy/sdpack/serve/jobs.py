"""Jobs by name, for as long as clients may ask for them."""

from __future__ import annotations

import time

from sdpack.serve.limits import Limits
from sdpack.serve.work import Job, Status


class Jobs:
    """The running jobs, and the last ones that have ended."""

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
        """Whether finished pictures are waiting to be fetched."""
        self._forget()
        done = (job for job in self._jobs.values() if job.status is Status.DONE)
        return any(not picture.fetched for job in done for picture in job.pictures)

    @property
    def unfetched_bytes(self) -> int:
        """Bytes of pictures that were not fetched yet."""
        self._forget()
        return sum(
            len(picture.encoded)
            for job in self._jobs.values()
            for picture in job.pictures
            if picture.encoded is not None and not picture.fetched
        )

    def _forget(self) -> None:
        """Drop jobs that were kept long enough, and fetched ones if there are too many.

        Jobs without pictures go first, then fetched ones, each the oldest first. Unfetched
        pictures stay for their full time; `Service.submit` limits how many there can be.
        """
        now, limits = time.monotonic(), self._limits
        ended = sorted(
            (job for job in self._jobs.values() if job.status.ended),
            key=lambda job: (_is_unfetched(job), bool(job.bytes), job.ended or now),
        )
        kept, taken = len(ended), sum(job.bytes for job in ended)
        for job in ended:
            old = now - (job.ended or now) > limits.keep_s
            crowded = kept > limits.keep_jobs or taken > limits.keep_bytes
            if old or (crowded and not _is_unfetched(job)):
                del self._jobs[job.id]
                kept, taken = kept - 1, taken - job.bytes
                job.free_pictures()


def _is_unfetched(job: Job) -> bool:
    return any(p.encoded is not None and not p.fetched for p in job.pictures)
