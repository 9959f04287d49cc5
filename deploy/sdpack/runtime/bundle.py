"""Loading a bundle as a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from sdpack.documents.layout import sampler_name, tokenizer_name
from sdpack.documents.manifest import Engine, Manifest
from sdpack.documents.profile import Size, format_size
from sdpack.domain.placement import Loading, Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines import onnxruntime, tensorrt_session
from sdpack.engines.session import Session
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES
from sdpack.errors import BundleError, PromptError
from sdpack.runtime.pipeline import Latents, Pipeline, Request
from sdpack.runtime.sampler import SamplerTable, read_sampler
from sdpack.runtime.tiling import load_tiled
from sdpack.runtime.tokenizer import PromptTokenizer

# Freed memory that a process may keep: a multiple of its scratch memory, and a constant.
KEPT, KEPT_BESIDES = 2, 32 * 2**20
# Estimated peak on another runtime: a multiple of the weights, and a constant.
WIDER, BESIDES = 3, 512 * 2**20


def pipeline(
    folder: Path,
    manifest: Manifest,
    runtime: Runtime | None = None,
    threads: int | None = None,
    opened: Callable[[Engine], Session] | None = None,
    low_memory: bool | None = None,
) -> Pipeline:
    """Return the pipeline of an opened bundle; parts are loaded later.

    Args:
        folder: the bundle's folder.
        manifest: its manifest.
        runtime: the runtime; by default the profile's. Portable graphs run everywhere, except bf16
            graphs, which need a GPU.
        threads: number of CPU threads.
        opened: loads a graph, if another process runs it.
        low_memory: release memory immediately, as the prediction assumes, which is slower; by
            default only if the budget requires it (`has_room`). TensorRT's scratch memory is always
            released.

    Raises:
        BundleError: the tokenizer is damaged.
    """
    chosen = runtime or manifest.profile.runtime
    spare = not has_room(manifest, chosen) if low_memory is None else low_memory
    if not chosen.on_gpu and opened is None:
        (onnxruntime.steady_memory if spare else onnxruntime.keep_memory)()
    session = opened or partial(_session, folder, runtime=chosen, threads=threads, low_memory=spare)
    loaders = {
        role: partial(_load, folder, manifest, role, chosen, session) for role in manifest.parts
    }
    space = manifest.latents
    return Pipeline(
        loaders,
        {
            role: PromptTokenizer(folder / tokenizer_name(role), part.tokens)
            for role, part in manifest.parts.items()
            if role.encodes_text
        },
        tables(folder, manifest),
        Latents(space.channels, space.pixels, space.scaling_factor, space.shift_factor),
        manifest.placement.placement(),
        manifest.conditioning,
    )


def has_room(manifest: Manifest, runtime: Runtime, besides: int = 0) -> bool:
    """Whether a process that keeps freed memory for reuse stays within a bundle's budget.

    Keeping it needs about twice the pipeline's scratch memory in addition to the predicted peak.
    There is no prediction for a runtime other than the profile's; the peak is then estimated from
    the weights that are loaded together, which may be wider there.

    Args:
        manifest: the bundle's manifest.
        runtime: the runtime that draws.
        besides: bytes that the process needs for other purposes.
    """
    memory = manifest.memory
    if runtime is manifest.profile.runtime:
        most = memory.predicted_bytes + KEPT * memory.activation_bytes + KEPT_BESIDES
    else:
        weights = manifest.evidence.winner.weights.values()
        phased = manifest.placement.loading is Loading.PHASED
        most = WIDER * (max(weights, default=0) if phased else sum(weights)) + BESIDES
    return most + besides <= memory.budget_bytes


def tables(folder: Path, manifest: Manifest) -> Callable[[Request], SamplerTable]:
    """Return a function from requests to sampler tables, which are read on first use."""

    @cache
    def read(name: str) -> SamplerTable:
        return read_sampler(folder / name)

    def of(request: Request) -> SamplerTable:
        steps = None if request.steps in (None, manifest.sampling.steps) else request.steps
        own = sampler_name((request.height, request.width), steps)
        return read(own if own in manifest.files else sampler_name(steps=steps))

    return of


def engines(manifest: Manifest, role: Role, runtime: Runtime) -> tuple[Engine, ...]:
    """Return the graphs of a part that a runtime loads: one, or the two of a tiled decoder."""
    part = manifest.parts[role]
    # Tiles were chosen for the profile's own memory; other runtimes decode whole images.
    if runtime is manifest.profile.runtime and part.tiles is not None:
        return part.engines
    if runtime in onnxruntime.PROVIDERS:
        return (Engine(graph=part.attending or part.graph),)
    return part.engines


def _load(
    folder: Path,
    manifest: Manifest,
    role: Role,
    runtime: Runtime,
    session: Callable[[Engine], Session],
) -> Session:
    part = manifest.parts[role]
    if runtime is Runtime.ONNXRUNTIME_CPU and part.precision is Precision.BF16:
        raise BundleError(
            f"{folder}: {part.graph} is in bf16, which ONNX Runtime does not compute on a CPU; run "
            "it on the profile's device, or build it with fp16 in the profile's precisions"
        )
    loaded = engines(manifest, role, runtime)
    if len(loaded) == 1:
        return session(loaded[0])
    head, tail = (partial(session, engine) for engine in loaded)
    tile = manifest.placement.tile
    assert part.tiles is not None
    assert tile is not None
    return load_tiled(head, tail, part.tiles.split, tile)


def _session(
    folder: Path, engine: Engine, runtime: Runtime, threads: int | None, low_memory: bool
) -> Session:
    if runtime in onnxruntime.PROVIDERS:
        return onnxruntime.load(folder / engine.graph, runtime, threads, low_memory=low_memory)
    if engine.plan is None:
        raise BundleError(
            f"{folder}: {engine.graph} has no engine for {runtime}; run `sdpack finish {folder}` "
            "on the device, or use --runtime onnxruntime-cpu"
        )
    return tensorrt_session.load(TENSORRT_PACKAGES[runtime], folder / engine.plan)


def request(
    manifest: Manifest,
    prompts: list[str],
    seeds: list[int],
    guidance_scale: float | None = None,
    negative_prompt: str | None = None,
    size: Size | None = None,
    steps: int | None = None,
) -> Request:
    """Make a request; the bundle's own settings replace missing ones.

    Args:
        manifest: the bundle's manifest.
        prompts: one prompt per image.
        seeds: one seed per image.
        guidance_scale: 1 disables guidance.
        negative_prompt: what the images should not show.
        size: height and width of an image, in pixels.
        steps: number of denoising steps.

    Raises:
        PromptError: the request is invalid, or the bundle was not built for this size or these
            steps.
    """
    settings = manifest.sampling
    own = (settings.height, settings.width)
    built = settings.sizes or (own,)
    height, width = size or own
    if (height, width) not in built:
        raise PromptError(
            f"{manifest.name} was built for images of "
            f"{', '.join(map(format_size, built))} pixels, not {format_size((height, width))}; "
            "choose one of these, or build with --size"
        )
    known = sorted({settings.steps, *settings.other_steps})
    if steps is not None and steps not in known:
        raise PromptError(
            f"{manifest.name} has no sampler table for {steps} steps, only for "
            f"{', '.join(map(str, known))}; choose one of these, or build with --steps"
        )
    return Request(
        prompts,
        seeds,
        settings.guidance_scale if guidance_scale is None else guidance_scale,
        height,
        width,
        settings.negative_prompt if negative_prompt is None else negative_prompt,
        settings.guidance_rescale,
        steps,
    )
