"""The work of a server: jobs of one or more images, as the event loop sees them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sdpack.errors import SdpackError
from sdpack.runtime.pictures import Encoding, Format


class Status(StrEnum):
    """The status of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (Status.DONE, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True)
class BatchKey:
    """The settings that images drawn together share; sizes in pixels."""

    height: int
    width: int
    steps: int
    guidance_scale: float
    negative_prompt: str


@dataclass(frozen=True)
class ImageRequest:
    """A request for images; image number i starts from `seed` + i.

    Attributes:
        read: the part of the prompt that is read, if every text encoder truncates it.
        warnings: for the client, about its request.
    """

    kind: BatchKey
    prompt: str
    seed: int
    count: int
    format: Format
    read: str | None = None
    warnings: Sequence[str] = ()


class TimedOutError(SdpackError):
    """A job took longer than the server allows."""


class CancelledJobError(SdpackError):
    """A job was cancelled while a client was waiting for it."""

    def __init__(self, job: Job) -> None:
        super().__init__("the request was cancelled before its pictures were drawn; try again")
        self.job = job


@dataclass(eq=False)
class RequestedImage:
    """One image of a job.

    Attributes:
        arrived: by the monotonic clock.
        encoded: the file; None until it is drawn.
        fetched: whether a client has fetched it.
    """

    job: Job
    number: int
    arrived: float
    encoded: bytes | None = None
    fetched: bool = False

    @property
    def asked(self) -> ImageRequest:
        """The request it belongs to."""
        return self.job.asked

    @property
    def seed(self) -> int:
        return self.asked.seed + self.number

    @property
    def wanted(self) -> bool:
        """Whether a client may still want it; read by the thread that draws."""
        return not self.job.has_ended


@dataclass(eq=False)
class Job:
    """A request on its way; only the event loop changes it.

    Attributes:
        step, steps: current and last step of the images being drawn.
        drawing: number of its images being drawn.
        made: number of its finished images.
        ended: when it ended, by the monotonic clock.
    """

    asked: ImageRequest
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    created: float = field(default_factory=time.time)
    status: Status = Status.QUEUED
    step: int = 0
    steps: int = 0
    drawing: int = 0
    made: int = 0
    error: Exception | None = None
    ended: float | None = None
    images: list[RequestedImage] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Add an image for each that was requested."""
        now = time.monotonic()
        self.images = [RequestedImage(self, number, now) for number in range(self.asked.count)]
        self.steps = self.kind.steps

    @property
    def kind(self) -> BatchKey:
        """The settings that its images share with others of their batch."""
        return self.asked.kind

    @property
    def encoding(self) -> Encoding:
        """The format of its images' files."""
        form = self.asked.format
        return form.encoding

    @property
    def has_ended(self) -> bool:
        return self.status.ended

    @property
    def files(self) -> list[bytes]:
        """The files of its finished images."""
        return [image.encoded for image in self.images if image.encoded is not None]

    @property
    def bytes(self) -> int:
        return sum(len(file) for file in self.files)

    @property
    def progress(self) -> float:
        """0 to 1."""
        if self.status is Status.DONE:
            return 1.0
        whole = self.made + self.drawing * self.step / self.steps
        return min(whole / len(self.images), 1.0)

    def advance(self, **changes: Any) -> None:
        """Change attributes, unless it has ended, and wake everyone who waits for a change.

        If it ends before all images are drawn, the finished ones are freed.
        """
        if self.status.ended:
            return
        for name, value in changes.items():
            setattr(self, name, value)
        if self.status.ended:
            self.ended = time.monotonic()
            if self.status is not Status.DONE:
                self.free_images()
        self._changed.set()
        self._changed = asyncio.Event()

    def free_images(self) -> None:
        """Free its images now; as they and the job refer to each other, only a GC would."""
        for image in self.images:
            image.encoded = None

    async def changes(self) -> AsyncIterator[Job]:
        """Yields the job now and after every change, until it has ended."""
        while True:
            changed, ended = self._changed, self.status.ended
            yield self
            if ended:
                return
            await changed.wait()

    async def finished(self) -> None:
        """Wait until it has ended."""
        async for _ in self.changes():
            pass


def outcome(job: Job) -> Sequence[bytes]:
    """The files of a finished job.

    Raises:
        CancelledJobError: it was cancelled.
        Exception: the error it failed with.
    """
    if job.status is Status.CANCELLED:
        raise CancelledJobError(job)
    if job.error is not None:
        raise job.error
    return job.files
