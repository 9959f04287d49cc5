"""Batches requests, and draws them in order.

Images are drawn in the order of their requests, except that an image takes along later ones with
the same size, steps and guidance, up to the batch the bundle was built for. The peak memory then
stays within the plan. An incomplete batch waits a little for more images.

The scheduler runs in the event loop; drawing and the encoding of files have threads of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sdpack.errors import EngineError, SdpackError
from sdpack.runtime.pictures import encode
from sdpack.serve.inference_worker import (
    AbandonedError,
    ImageOrError,
    InferenceWorker,
    parameters_of,
)
from sdpack.serve.limits import Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.work import ImageRequest, Job, RequestedImage, Status, TimedOutError

log = logging.getLogger("sdpack.serve")
MOST_FAILURES = 3  # failed batches in a row; after that the cause is not the requests
STUCK = 2  # times the timeout of a request
STEADY = 0.8  # weight of the known time per image when it is updated


class BusyError(SdpackError):
    """The queue is full.

    Attributes:
        retry_s: estimated seconds until there is room.
    """

    def __init__(self, what: str, retry_s: int) -> None:
        super().__init__(f"{what}; try again in {retry_s} s")
        self.retry_s = retry_s


class FailedError(SdpackError):
    """Drawing failed for an unexpected reason."""

    def __init__(self) -> None:
        super().__init__("the pictures could not be drawn; see the server's log")


class EndingError(SdpackError):
    """The server is shutting down and accepts no new requests."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down and accepts no more requests; use another")


@dataclass
class _Batch:
    """The images being drawn, and since when."""

    images: Sequence[RequestedImage]
    began: float

    @property
    def is_wanted(self) -> bool:
        return any(image.wanted for image in self.images)


class Scheduler:
    """Queues jobs and has a worker draw them.

    Args:
        batch: the most images drawn together.
    """

    def __init__(
        self, worker: InferenceWorker, batch: int, limits: Limits, metrics: Metrics
    ) -> None:
        self.batch = batch
        self.limits = limits
        self.ending = False
        self._worker = worker
        self._metrics = metrics
        self._waiting: deque[RequestedImage] = deque()
        self._drawing: _Batch | None = None
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._executor = ThreadPoolExecutor(1, "draw")
        self._files = ThreadPoolExecutor(1, "encode")
        self._per_image_s = 1.0
        self._failures = 0  # in a row
        self._timers: dict[Job, asyncio.TimerHandle] = {}
        metrics.queue_depth(lambda: self.depth)

    @property
    def depth(self) -> int:
        """Images accepted and not yet drawn."""
        return len(self._waiting) + (len(self._drawing.images) if self._drawing else 0)

    @property
    def stuck(self) -> bool:
        """Whether the worker still draws long after every client has stopped waiting."""
        batch = self._drawing
        if batch is None or batch.is_wanted:
            return False
        return time.monotonic() - batch.began > STUCK * self.limits.timeout_s

    def submit(self, asked: ImageRequest) -> Job:
        """Accept a job.

        Raises:
            BusyError: the queue has no room for all of its images.
            EndingError: the server is shutting down.
        """
        if self.ending:
            raise EndingError
        if self.depth + asked.count > self.limits.queue:
            retry = max(1, math.ceil(self.depth * self._per_image_s))
            full = f"{self.depth} pictures are waiting; the queue holds {self.limits.queue}"
            raise BusyError(full, retry)
        job = Job(asked)
        self._waiting.extend(job.images)
        self._idle.clear()
        self._arrived.set()
        loop = asyncio.get_running_loop()
        self._timers[job] = loop.call_later(self.limits.timeout_s, self._time_out, job)
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job: drop its waiting images, and stop drawing it at the next step."""
        self._end(job, Status.CANCELLED)

    def _time_out(self, job: Job) -> None:
        what = "waited" if job.status is Status.QUEUED else "ran"
        error = TimedOutError(
            f"the request {what} for {self.limits.timeout_s:g} s, the longest this server allows; "
            "ask for fewer pictures or steps, or try again later"
        )
        self._end(job, Status.FAILED, error)

    def _end(self, job: Job, status: Status, error: Exception | None = None) -> None:
        if job.status.ended:
            return
        if status is not Status.DONE:
            reason = "cancelled" if status is Status.CANCELLED else type(error).__name__
            self._metrics.failed(reason, len(job.images) - job.made)
        if error is not None:  # its frames hold the arrays of a whole batch
            error.__traceback__ = error.__cause__ = error.__context__ = None
        job.advance(status=status, error=error)
        self._timers.pop(job).cancel()
        if status is not Status.DONE:
            self._waiting = deque(image for image in self._waiting if image.job is not job)
            self._arrived.set()  # wakes `_next`, which may be waiting for the batch to fill

    async def load(self) -> None:
        """Load the engines on the thread that draws.

        Raises:
            SdpackError: they cannot be loaded, or their images are broken.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._worker.load)

    async def run(self) -> None:
        """Draw until cancelled.

        Raises:
            SdpackError: nothing can be drawn any more; all accepted jobs have failed.
        """
        while True:
            images = await self._next()
            if not images:
                self._idle.set()
                continue
            self._drawing = _Batch(images, time.monotonic())
            try:
                await self._draw(self._drawing)
            except Exception as error:  # the next batch is drawn whatever it is
                self._fail(images, error)
                await self._doubt()
            self._drawing = None
            if not self._waiting:
                self._idle.set()

    async def _next(self) -> list[RequestedImage]:
        """The next batch; empty if all waiting images were cancelled in the meantime."""
        while not self._waiting:
            self._idle.set()
            self._arrived.clear()
            await self._arrived.wait()
        first = self._waiting[0]
        ends = first.arrived + self.limits.wait_s
        while self._waiting and self._waiting[0] is first and not self.ending:
            left = ends - time.monotonic()
            if left <= 0 or len(self._matching(first)) == self.batch:
                break
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)
        if not self._waiting:
            return []
        taken = self._matching(self._waiting[0])
        self._waiting = deque(image for image in self._waiting if image not in taken)
        return taken

    def _matching(self, first: RequestedImage) -> list[RequestedImage]:
        kind = first.asked.kind
        matching = [image for image in self._waiting if image.asked.kind == kind]
        return matching[: self.batch]

    async def _draw(self, batch: _Batch) -> None:
        loop, images = asyncio.get_running_loop(), batch.images
        now = time.monotonic()
        for image in images:
            self._metrics.stage("queue", now - image.arrived)
            drawing = sum(other.job is image.job for other in images)
            image.job.advance(status=Status.RUNNING, step=0, drawing=drawing)
        self._metrics.batch(len(images))

        def stepped(made: int, of: int) -> None:
            """Runs on the thread that draws."""
            if not batch.is_wanted:
                raise AbandonedError("no client is waiting for these pictures any more")
            loop.call_soon_threadsafe(self._stepped, images, made, of)

        kind = images[0].asked.kind
        prompts = [image.asked.prompt for image in images]
        seeds = [image.seed for image in images]
        work = loop.run_in_executor(
            self._executor, self._worker.draw, kind, prompts, seeds, stepped
        )
        try:
            drawn = await work
        except AbandonedError:
            return
        self._failures = 0
        took = (time.monotonic() - now) / len(images)
        self._per_image_s = STEADY * self._per_image_s + (1 - STEADY) * took
        for image, result in zip(images, drawn, strict=True):
            await self._finish(image, result)

    def _fail(self, images: Sequence[RequestedImage], error: Exception) -> None:
        log.error("%d pictures could not be drawn", len(images), exc_info=error)
        known = error if isinstance(error, SdpackError) else FailedError()
        for image in images:
            self._end(image.job, Status.FAILED, known)

    async def _doubt(self) -> None:
        """After some failures in a row, check whether the engines still work."""
        self._failures += 1
        if self._failures < MOST_FAILURES:
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._worker.try_out)
        except Exception as error:
            self.ending = True
            for job in list(self._timers):
                self._end(job, Status.FAILED, FailedError())
            self._drawing = None
            self._idle.set()
            raise EngineError(f"pictures can no longer be drawn: {error}") from error
        self._failures = 0

    def _stepped(self, images: Sequence[RequestedImage], made: int, of: int) -> None:
        for job in dict.fromkeys(image.job for image in images):
            job.advance(step=made, steps=of)

    async def _finish(self, image: RequestedImage, drawn: ImageOrError) -> None:
        job = image.job
        if job.status.ended:
            return
        if isinstance(drawn, SdpackError):
            self._end(job, Status.FAILED, drawn)
            return
        since, asked = time.monotonic(), job.asked
        loop = asyncio.get_running_loop()
        made = parameters_of(self._worker, asked, image.seed)
        file = await loop.run_in_executor(self._files, encode, drawn, asked.format, made)
        self._metrics.stage("write", time.monotonic() - since)
        if job.status.ended:
            return
        image.encoded = file
        job.made += 1
        self._metrics.drawn()
        if job.made == len(job.images):
            self._end(job, Status.DONE)
        else:
            job.advance(drawing=job.drawing - 1)

    def abandon(self) -> None:
        """Cancel all jobs."""
        for job in list(self._timers):
            self.cancel(job)

    async def drain(self) -> None:
        """Accept no new jobs, and wait until all accepted ones have ended."""
        self.ending = True
        self._arrived.set()
        await self._idle.wait()

    def close(self) -> None:
        """Free the engines on the thread that has them, and end the threads."""
        self._executor.submit(self._worker.close)
        self._executor.shutdown()
        self._files.shutdown()
