"""One bundle being served: what its parts have in common."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sdpack.documents.manifest import Manifest
from sdpack.documents.profile import Size, parse_sizes
from sdpack.domain.precision import Runtime
from sdpack.errors import InputError, SdpackError
from sdpack.runtime.pictures import Format
from sdpack.runtime.pipeline import LARGEST_SEED
from sdpack.serve.inference_worker import InferenceWorker
from sdpack.serve.jobs import Jobs
from sdpack.serve.limits import MOST_GUIDANCE, Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.scheduler import BusyError, Scheduler
from sdpack.serve.work import BatchKey, ImageRequest, Job
from sdpack.units import format_bytes

RANDOM_SEEDS = 2**32
OWN_BYTES = 64 * 2**20
"""What a server takes of a CPU's memory, besides what was planned for its bundle and what its
clients leave unread."""


class BadRequestError(InputError):
    """A request that cannot be drawn.

    Attributes:
        param: the field that is wrong.
    """

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


@dataclass
class Service:
    """A bundle, whoever draws it, and what is known of its work.

    Attributes:
        aliases: model names that are accepted besides the bundle's own.
        failed: why it will never be ready.
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
        """Of the model, as clients call it."""
        return self.manifest.name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model that clients may give, the bundle's own first."""
        return tuple(dict.fromkeys((self.name, *self.aliases)))

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Heights and widths it draws, the usual one first."""
        sampling = self.manifest.sampling
        return tuple(dict.fromkeys(((sampling.height, sampling.width), *sampling.sizes)))

    @property
    def steps(self) -> list[int]:
        """Numbers of steps it can do."""
        sampling = self.manifest.sampling
        return sorted({sampling.steps, *sampling.other_steps})

    @property
    def most_pictures(self) -> int:
        """Of one request."""
        return min(self.limits.pictures, self.limits.queue)

    def submit(self, asked: ImageRequest, keep: bool = True) -> Job:
        """Accept a job.

        Args:
            keep: its pictures are fetched later; others are handed out when they are drawn.

        Raises:
            BusyError: the queue is full, or too much waits to be fetched.
            EndingError: the server is ending.
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
        self,
        prompt: str,
        count: int,
        form: Format,
        size: str | None = None,
        seed: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
    ) -> ImageRequest:
        """What a request asks for, with the bundle's own settings where it says nothing.

        Raises:
            BadRequestError: the bundle cannot draw it, or the server does not.
        """
        sampling, limits = self.manifest.sampling, self.limits
        for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt or "")):
            if len(text) > limits.prompt:
                raise BadRequestError(
                    name, f"has {len(text)} characters; this server accepts {limits.prompt}"
                )
        most = self.most_pictures
        if not 1 <= count <= most:
            raise BadRequestError("n", f"this server draws 1 to {most} pictures per request")
        if steps is not None and steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise BadRequestError("steps", f"{steps} is not supported; available: {known}")
        first = secrets.randbelow(RANDOM_SEEDS) if seed is None else seed
        if not 0 <= first <= LARGEST_SEED - most:
            raise BadRequestError(
                "seed", f"{first} is out of range; use 0 to {LARGEST_SEED - most}"
            )
        scale = sampling.guidance_scale if guidance_scale is None else guidance_scale
        if not 0 <= scale <= MOST_GUIDANCE:
            raise BadRequestError(
                "guidance_scale", f"{scale} is out of range; use 0 to {MOST_GUIDANCE:g}"
            )
        height, width = self._size(size)
        negative = sampling.negative_prompt if negative_prompt is None else negative_prompt
        kind = BatchKey(height, width, steps or sampling.steps, scale, negative)
        return self._with_warnings(ImageRequest(kind, prompt, first, count, form))

    def _with_warnings(self, asked: ImageRequest) -> ImageRequest:
        """The same, saying which of its texts are longer than what text encoders read."""
        kind, conditioning = asked.kind, self.manifest.conditioning
        texts = {"prompt": asked.prompt}
        if conditioning.guided(kind.guidance_scale):
            texts["negative_prompt"] = kind.negative_prompt
        found = {name: self.worker.truncations(text) for name, text in texts.items()}
        warnings = tuple(f"{name}: {each}" for name, of_text in found.items() for each in of_text)
        shortened = [each.read for each in found["prompt"]]
        encoders = sum(role.encodes_text for role in self.manifest.parts)
        read = max(shortened, key=len) if shortened and len(shortened) == encoders else None
        return replace(asked, read=read, warnings=warnings)

    def _size(self, text: str | None) -> Size:
        if text is None or text == "auto":
            return self.sizes[0]
        try:
            (found,) = parse_sizes(text)
        except (InputError, ValueError):
            found = None
        if found not in self.sizes:
            known = ", ".join(map(size_words, self.sizes))
            raise BadRequestError("size", f"{text[:40]!r} is not supported; available: {known}")
        return found


def size_words(size: Size) -> str:
    """Height and width as clients write them: 768x512, the width first."""
    return f"{size[1]}x{size[0]}"


def tightness(manifest: Manifest, runtime: Runtime, batch: int | None = None) -> str | None:
    """What to say where a CPU's memory was planned for a bundle and has no room for a server.

    Args:
        batch: the most pictures drawn together; None for the bundle's own.
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
