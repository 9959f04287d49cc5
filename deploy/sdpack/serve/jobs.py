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
        """Whether finished images are waiting to be fetched."""
        self._forget()
        done = (job for job in self._jobs.values() if job.status is Status.DONE)
        return any(not image.fetched for job in done for image in job.images)

    @property
    def unfetched_bytes(self) -> int:
        """Bytes of images that were not fetched yet."""
        self._forget()
        return sum(
            len(image.encoded)
            for job in self._jobs.values()
            for image in job.images
            if image.encoded is not None and not image.fetched
        )

    def _forget(self) -> None:
        """Drop jobs that were kept long enough, and fetched ones if there are too many.

        Jobs without images go first, then fetched ones, each the oldest first. Unfetched
        images stay for their full time; `Service.submit` limits how many there can be.
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
                job.free_images()


def _is_unfetched(job: Job) -> bool:
    return any(p.encoded is not None and not p.fetched for p in job.images)
