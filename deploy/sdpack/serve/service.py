"""A bundle that is served, with everything the routes share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, Unpack

from sdpack.documents.manifest import Manifest, SamplingDefaults
from sdpack.documents.profile import Size, format_size, parse_sizes
from sdpack.domain.precision import Runtime
from sdpack.errors import InputError, SdpackError
from sdpack.runtime.pictures import Format
from sdpack.runtime.pipeline import LARGEST_SEED
from sdpack.serve.inference_worker import InferenceWorker
from sdpack.serve.jobs import Jobs
from sdpack.serve.limits import MOST_GUIDANCE, RANDOM_SEEDS, Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.scheduler import BusyError, Scheduler
from sdpack.serve.work import BatchKey, ImageRequest, Job
from sdpack.units import format_bytes

OWN_BYTES = 64 * 2**20
"""Host memory a server takes beyond its bundle's plan and responses its clients have not read."""


class BadRequestError(InputError):
    """A request that cannot be drawn.

    Attributes:
        param: the field that is wrong.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


class GivenSettings(TypedDict, total=False):
    """Settings that a client may give with a prompt; None, too, means "not given".

    Attributes:
        size: "WIDTHxHEIGHT" in pixels, or "auto".
        seed: seed of the first image.
    """

    size: str | None
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    negative_prompt: str | None


@dataclass
class Service:
    """A bundle, the worker that draws with it, and the state of its work.

    Attributes:
        aliases: additional model names that clients may use.
        ready: whether the engines are loaded and work.
        failed: why it cannot become ready; None while it may.
        started: by the clock, in seconds.
    """

    manifest: Manifest
    worker: InferenceWorker
    limits: Limits
    metrics: Metrics
    scheduler: Scheduler
    jobs: Jobs
    aliases: Sequence[str] = ()
    ready: bool = False
    failed: SdpackError | None = None
    started: float = field(default_factory=time.time)

    @property
    def name(self) -> str:
        """The model name that clients use."""
        return self.manifest.name

    @property
    def sampling(self) -> SamplingDefaults:
        """The bundle's own settings."""
        return self.manifest.sampling

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model that clients may give, the bundle's own first."""
        return tuple(dict.fromkeys((self.name, *self.aliases)))

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Heights and widths it draws, the default first."""
        return self.sampling.supported_sizes

    @property
    def steps(self) -> list[int]:
        """Numbers of steps it supports, ascending."""
        return self.sampling.supported_steps

    @property
    def most_images(self) -> int:
        """The most images of one request."""
        return min(self.limits.images, self.limits.queue)

    def submit(self, asked: ImageRequest, keep: bool = True) -> Job:
        """Accept a job.

        Args:
            keep: whether its images are fetched later; otherwise the response contains them.

        Raises:
            BusyError: the queue is full, or too many images wait to be fetched.
            EndingError: the server is shutting down.
        """
        if keep and self.jobs.unfetched_bytes > self.limits.keep_bytes:
            raise BusyError(
                "too many pictures are waiting to be fetched",
                max(1, round(self.limits.keep_s / 10)),
            )
        job = self.scheduler.submit(asked)
        if keep:
            self.jobs.add(job)
        return job

    def asked(
        self, prompt: str, count: int, form: Format, **given: Unpack[GivenSettings]
    ) -> ImageRequest:
        """A client's request, with the bundle's own settings where it gives none.

        Args:
            count: number of images.
            form: format of the images.

        Raises:
            BadRequestError: the bundle cannot draw it, or the server does not allow it.
        """
        negative = given.get("negative_prompt")
        self._check_length("prompt", prompt)
        self._check_length("negative_prompt", negative or "")
        if not 1 <= count <= self.most_images:
            raise BadRequestError(
                "n", f"this server draws 1 to {self.most_images} pictures per request"
            )
        steps = self._steps(given.get("steps"))
        seed = self._seed(given.get("seed"))
        scale = self._guidance_scale(given.get("guidance_scale"))
        height, width = self._size(given.get("size"))
        if negative is None:
            negative = self.sampling.negative_prompt
        kind = BatchKey(height, width, steps, scale, negative)
        return self._with_warnings(ImageRequest(kind, prompt, seed, count, form))

    def _check_length(self, name: str, text: str) -> None:
        most = self.limits.prompt
        if len(text) > most:
            raise BadRequestError(name, f"has {len(text)} characters; this server accepts {most}")

    def _steps(self, steps: int | None) -> int:
        if steps is not None and steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise BadRequestError("steps", f"{steps} is not supported; available: {known}")
        return steps or self.sampling.steps

    def _seed(self, seed: int | None) -> int:
        """The seed of the first image, so that every image's seed is in range."""
        first = secrets.randbelow(RANDOM_SEEDS) if seed is None else seed
        largest = LARGEST_SEED - self.most_images
        if not 0 <= first <= largest:
            raise BadRequestError("seed", f"{first} is out of range; use 0 to {largest}")
        return first

    def _guidance_scale(self, scale: float | None) -> float:
        found = self.sampling.guidance_scale if scale is None else scale
        if not 0 <= found <= MOST_GUIDANCE:
            raise BadRequestError(
                "guidance_scale", f"{found} is out of range; use 0 to {MOST_GUIDANCE:g}"
            )
        return found

    def _size(self, text: str | None) -> Size:
        if text is None or text == "auto":
            return self.sizes[0]
        try:
            (found,) = parse_sizes(text)
        except (InputError, ValueError):
            found = None
        if found not in self.sizes:
            known = ", ".join(map(format_size, self.sizes))
            raise BadRequestError("size", f"{text[:40]!r} is not supported; available: {known}")
        return found

    def _with_warnings(self, asked: ImageRequest) -> ImageRequest:
        """The same request, with warnings about texts that a text encoder truncates."""
        kind, conditioning = asked.kind, self.manifest.conditioning
        texts = {"prompt": asked.prompt}
        if conditioning.guided(kind.guidance_scale):
            texts["negative_prompt"] = kind.negative_prompt
        found = {
            name: self.worker.truncations(text, negative=name != "prompt")
            for name, text in texts.items()
        }
        warnings = tuple(f"{name}: {each}" for name, of_text in found.items() for each in of_text)
        shortened = [each.read for each in found["prompt"]]
        encoders = sum(role.encodes_text for role in self.manifest.parts)
        read = max(shortened, key=len) if shortened and len(shortened) == encoders else None
        return replace(asked, read=read, warnings=warnings)


def tightness(manifest: Manifest, runtime: Runtime, batch: int | None = None) -> str | None:
    """A warning if a bundle planned for host memory leaves no room for a server; else None.

    Args:
        batch: the most images drawn together; None: the bundle's.
    """
    memory, most = manifest.memory, manifest.sampling.batch
    if runtime is not manifest.profile.runtime or runtime.on_gpu or (batch or most) < most:
        return None
    if memory.predicted_bytes + OWN_BYTES <= memory.budget_bytes:
        return None
    taken, budget, own = map(format_bytes, (memory.predicted_bytes, memory.budget_bytes, OWN_BYTES))
    return (
        f"{manifest.name} may take {taken} of {budget}, and its server up to {own} more: "
        "use a smaller --batch, or build with that much less --memory"
    )
