"""The engines of a server, for the one thread that draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdpack.documents.manifest import Manifest
from sdpack.domain.arrays import Float32Array
from sdpack.domain.precision import Runtime
from sdpack.errors import BrokenPictureError, SdpackError
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.infotext import GenerationParameters, model_hash
from sdpack.runtime.pipeline import Request, to_pictures
from sdpack.runtime.sampler import Stepped
from sdpack.runtime.sampler_label import sampler_label
from sdpack.runtime.truncation import Truncation, truncations
from sdpack.serve.work import BatchKey, ImageRequest

WARM_UP = "a red heart"

ImageOrError = NDArray[np.uint8] | SdpackError


class AbandonedError(SdpackError):
    """No client waits for the images any more."""


class InferenceWorker:
    """Draws batches from a bundle; all its methods but `truncations` are for one thread.

    Args:
        timed: called with the name and the seconds of each stage of a batch.
        low_memory: as of `pipeline`.

    Attributes:
        sampler: the web UI's name of the bundle's sampler.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        runtime: Runtime,
        threads: int | None = None,
        timed: Callable[[str, float], None] = lambda *_: None,
        low_memory: bool | None = None,
    ) -> None:
        self.manifest = manifest
        self.sampler = sampler_label(folder)
        self._pipeline = pipeline(folder, manifest, runtime, threads, low_memory=low_memory)
        self._timed = timed

    def load(self) -> None:
        """Load the engines and draw an image to try them.

        Raises:
            SdpackError: they cannot be loaded, or the image is broken.
        """
        self._pipeline.load()
        self.try_out()

    def try_out(self) -> None:
        """Draw an image to check that the engines work.

        Raises:
            SdpackError: it cannot be drawn, or it is broken.
        """
        sampling = self.manifest.sampling
        steps = min(sampling.supported_steps)
        self._pipeline.draw(request(self.manifest, [WARM_UP], [0], steps=steps))

    def draw(
        self, kind: BatchKey, prompts: Sequence[str], seeds: Sequence[int], stepped: Stepped
    ) -> list[ImageOrError]:
        """Return an image uint8 (H, W, 3) for each prompt, or the error it failed with.

        Args:
            stepped: called after each step, as by `sample`; an exception it raises ends the work.

        Raises:
            SdpackError: none could be drawn.
        """
        asked = self.request(kind, prompts, seeds)
        since = time.perf_counter()
        texts = self._pipeline.texts(asked)
        since = self._done("encode", since)
        latents = self._pipeline.denoise(asked, *texts, stepped)
        since = self._done("denoise", since)
        decoded = self._pipeline.decode(latents)
        self._done("decode", since)
        return [_checked(decoded[i : i + 1]) for i in range(len(decoded))]

    def request(self, kind: BatchKey, prompts: Sequence[str], seeds: Sequence[int]) -> Request:
        """A request to the pipeline.

        Raises:
            PromptError: the bundle cannot draw it.
        """
        return request(
            self.manifest,
            list(prompts),
            list(seeds),
            guidance_scale=kind.guidance_scale,
            negative_prompt=kind.negative_prompt,
            size=(kind.height, kind.width),
            steps=kind.steps,
        )

    def truncations(self, prompt: str, negative: bool = False) -> list[Truncation]:
        """The text encoders that truncate a prompt; may be called from any thread."""
        pipeline = self._pipeline
        return truncations(pipeline.tokenizers, pipeline.conditioning, prompt, negative)

    def _done(self, stage: str, since: float) -> float:
        now = time.perf_counter()
        self._timed(stage, now - since)
        return now

    def close(self) -> None:
        """Free the engines."""
        self._pipeline.close()


def _checked(decoded: Float32Array) -> ImageOrError:
    try:
        images: NDArray[np.uint8] = to_pictures(decoded)
    except BrokenPictureError as error:
        return error
    found: NDArray[np.uint8] = images[0]
    return found


def parameters_of(worker: InferenceWorker, asked: ImageRequest, seed: int) -> GenerationParameters:
    """How the image of a request with this seed is made."""
    kind = asked.kind
    return GenerationParameters(
        prompt=asked.prompt,
        negative_prompt=kind.negative_prompt,
        seed=seed,
        steps=kind.steps,
        guidance_scale=kind.guidance_scale,
        width=kind.width,
        height=kind.height,
        model=worker.manifest.name,
        model_hash=model_hash(worker.manifest),
        sampler=worker.sampler,
    )
