"""Drawing with a bundle from Python, without PyTorch."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image

from sdpack.api.values import PathLikeText, as_choice, as_count, as_path, as_scale, as_size
from sdpack.documents.bundle import open_bundle as read_bundle
from sdpack.documents.manifest import Manifest
from sdpack.domain.closing import Closing
from sdpack.domain.precision import Runtime
from sdpack.errors import EngineError, PromptError
from sdpack.runtime.bundle import pipeline, request
from sdpack.runtime.choose import chosen_runtime
from sdpack.runtime.truncation import truncations

if TYPE_CHECKING:
    from sdpack.runtime.pipeline import Pipeline, Request

FIRST_SEED = 0


class Bundle(Closing):
    """An opened bundle, which draws images; returned by `sdpack.open_bundle`.

    The first call of `draw` loads the engines. `close`, or the end of a `with` statement, frees
    them. Calls from several threads run one after the other.
    """

    def __init__(self, manifest: Manifest, load: Callable[[], Pipeline]) -> None:
        self._manifest = manifest
        self._load = load
        self._pipeline: Pipeline | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest: its parts, settings and evidence."""
        return self._manifest

    def draw(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str | None = None,
        seed: int | None = None,
        steps: int | None = None,
        size: tuple[int, int] | None = None,
        guidance_scale: float | None = None,
        count: int = 1,
    ) -> list[Image.Image]:
        """Draw images, one after the other; the same arguments always give the same images.

        A prompt longer than the limit of a text encoder is truncated, with a `UserWarning`.

        Args:
            prompt: a prompt, or a list of prompts.
            negative_prompt: what the images should not show; by default the bundle's.
            seed: seed of the first image, incremented for each later one; by default 0.
            steps: number of denoising steps; by default the bundle's.
            size: width and height in pixels; by default the bundle's.
            guidance_scale: 1 disables guidance (for Z-Image, 0); by default the bundle's.
            count: number of images per prompt; images of one prompt are adjacent in the result.

        Raises:
            PromptError: an argument is wrong, or the bundle was not built for the size or steps.
            EngineError: an engine cannot be loaded or run, or the bundle was closed.
            BrokenPictureError: an image has non-finite values or is constant.
            SdpackError: any other failure.
        """
        prompts = _texts(prompt)
        per_prompt = as_count(count, "count", refusal=PromptError)
        first_seed = as_count(FIRST_SEED if seed is None else seed, "seed", 0, refusal=PromptError)
        request_of = _request_maker(self._manifest, negative_prompt, steps, size, guidance_scale)
        texts = [text for text in prompts for _ in range(per_prompt)]
        requests = [request_of([text], [number]) for number, text in enumerate(texts, first_seed)]
        with self._lock:
            loaded = self._loaded()
            images = [_draw_image(loaded, each) for each in requests]
        for text in dict.fromkeys(prompts):
            for truncation in truncations(loaded.tokenizers, loaded.conditioning, text):
                warnings.warn(f"{text!r}: {truncation}", stacklevel=2)
        return images

    def _loaded(self) -> Pipeline:
        if self._closed:
            raise EngineError(f"the bundle {self._manifest.name} was closed; open it again")
        if self._pipeline is None:
            self._pipeline = self._load()
        return self._pipeline

    def close(self) -> None:
        """Free the engines; `draw` fails afterwards. Closing again does nothing."""
        with self._lock:
            self._closed = True
            if self._pipeline is not None:
                self._pipeline.close()
                self._pipeline = None


def open_bundle(
    path: PathLikeText,
    runtime: str | None = None,
    threads: int | None = None,
    low_memory: bool | None = None,
) -> Bundle:
    """Open a finished bundle, after checking all its files against their checksums.

    Args:
        path: folder of the bundle.
        runtime: such as "onnxruntime-cpu"; by default the profile's if this machine has it, else
            the CPU.
        threads: number of CPU threads; by default the number of cores this process may use.
        low_memory: release memory immediately, which is slower; by default only if memory is short.

    Raises:
        BundleError: the bundle is missing, incomplete or damaged.
        InputError: an argument is wrong.
        MissingPackageError: no installed runtime can run the bundle.
    """
    folder = as_path(path, "path")
    requested = None if runtime is None else as_choice(Runtime, runtime, "runtime")
    cpu_threads = None if threads is None else as_count(threads, "threads")
    manifest = read_bundle(folder)
    chosen = requested or chosen_runtime(manifest)
    place = folder.absolute()  # the current folder may change before the first image is drawn

    def load() -> Pipeline:
        return pipeline(place, manifest, chosen, cpu_threads, low_memory=low_memory)

    return Bundle(manifest, load)


def _texts(prompt: str | Sequence[str]) -> list[str]:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise PromptError(f"prompt is {prompt!r}; give a text, or a list of texts")
    if not texts:
        raise PromptError("prompt is an empty list; give at least one text")
    return [*texts]


def _request_maker(
    manifest: Manifest,
    negative_prompt: str | None,
    steps: int | None,
    size: tuple[int, int] | None,
    guidance_scale: float | None,
) -> Callable[[list[str], list[int]], Request]:
    """Check the settings and return a function from prompts and seeds to a request."""
    if negative_prompt is not None and not isinstance(negative_prompt, str):
        raise PromptError(f"negative_prompt is {negative_prompt!r}; give a text")
    return partial(
        request,
        manifest,
        negative_prompt=negative_prompt,
        steps=None if steps is None else as_count(steps, "steps", refusal=PromptError),
        size=None if size is None else as_size(size, "size", PromptError),
        guidance_scale=(
            None
            if guidance_scale is None
            else as_scale(guidance_scale, "guidance_scale", PromptError)
        ),
    )


def _draw_image(loaded: Pipeline, wanted: Request) -> Image.Image:
    (pixels,) = loaded.draw(wanted)
    return Image.fromarray(pixels)
