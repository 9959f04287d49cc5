"""A bundle that draws, for Python programs; nothing here needs PyTorch."""

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
    """A bundle that draws pictures, as `sdpack.open_bundle` gives it.

    Its engines are loaded by the first call of `draw` and freed by `close`, or at the end of a
    `with` statement. Calls from several threads wait for each other.
    """

    def __init__(self, manifest: Manifest, load: Callable[[], Pipeline]) -> None:
        self._manifest = manifest
        self._load = load
        self._pipeline: Pipeline | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself: its parts, its settings, its evidence."""
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
        """Draw pictures, one after the other; the same arguments always give the same pictures.

        A prompt that is longer than what a text encoder reads is drawn as far as it is read, with
        a `UserWarning`.

        Args:
            prompt: what to draw, or a list of that.
            negative_prompt: what the pictures should not show; by default the bundle's.
            seed: of the first picture, each later one's is one more; by default 0.
            steps: of denoising; by default the bundle's.
            size: width and height in pixels; by default the bundle's.
            guidance_scale: 1 disables guidance; by default the bundle's.
            count: pictures of each prompt, which follow each other.

        Raises:
            PromptError: an argument is wrong, or the bundle was not built for the size or steps.
            EngineError: an engine cannot be loaded or run, or the bundle was closed.
            BrokenPictureError: a picture is not finite, or constant.
            SdpackError: anything else that failed, in one line.
        """
        prompts = _texts(prompt)
        wanted = as_count(count, "count", refusal=PromptError)
        first = as_count(FIRST_SEED if seed is None else seed, "seed", 0, refusal=PromptError)
        ask = _asking(self._manifest, negative_prompt, steps, size, guidance_scale)
        each = [text for text in prompts for _ in range(wanted)]
        asked = [ask([text], [number]) for number, text in enumerate(each, first)]
        with self._lock:
            drawer = self._loaded()
            pictures = [_picture(drawer, one) for one in asked]
        for text in dict.fromkeys(prompts):
            for truncation in truncations(drawer.tokenizers, drawer.conditioning, text):
                warnings.warn(f"{text!r}: {truncation}", stacklevel=2)
        return pictures

    def _loaded(self) -> Pipeline:
        if self._closed:
            raise EngineError(f"the bundle {self._manifest.name} was closed; open it again")
        if self._pipeline is None:
            self._pipeline = self._load()
        return self._pipeline

    def close(self) -> None:
        """Free the engines; the bundle draws no more. Closing it again does nothing."""
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
    """Open a finished bundle, all of whose files are checked against their checksums.

    Args:
        path: folder of the bundle.
        runtime: that draws, such as "onnxruntime-cpu"; by default the profile's if this machine
            has it, else the CPU.
        threads: of a CPU; by default as many as there are cores for this process.
        low_memory: release memory immediately, and be slower; by default where memory is short.

    Raises:
        BundleError: there is no bundle, or it is not whole.
        InputError: an argument is wrong.
        MissingPackageError: nothing that could draw it is installed.
    """
    folder = as_path(path, "path")
    asked = None if runtime is None else as_choice(Runtime, runtime, "runtime")
    used = None if threads is None else as_count(threads, "threads")
    manifest = read_bundle(folder)
    chosen = asked or chosen_runtime(manifest)
    place = folder.absolute()  # whatever the current folder is once the first picture is drawn
    return Bundle(manifest, lambda: pipeline(place, manifest, chosen, used, low_memory=low_memory))


def _texts(prompt: str | Sequence[str]) -> list[str]:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise PromptError(f"prompt is {prompt!r}; give a text, or a list of texts")
    if not texts:
        raise PromptError("prompt is an empty list; give at least one text")
    return [*texts]


def _asking(
    manifest: Manifest,
    negative_prompt: str | None,
    steps: int | None,
    size: tuple[int, int] | None,
    guidance_scale: float | None,
) -> Callable[[list[str], list[int]], Request]:
    """A request of prompts and seeds with these settings, where they are what they should be."""
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


def _picture(drawer: Pipeline, asked: Request) -> Image.Image:
    (picture,) = drawer.draw(asked)
    return Image.fromarray(picture)
