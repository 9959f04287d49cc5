"""A bundle as a pipeline that draws."""

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

KEPT, KEPT_BESIDES = 2, 32 * 2**20  # times its scratch, and bytes, that may be kept
WIDER, BESIDES = 3, 512 * 2**20  # times its weights, and bytes, that nobody planned for


def pipeline(
    folder: Path,
    manifest: Manifest,
    runtime: Runtime | None = None,
    threads: int | None = None,
    opened: Callable[[Engine], Session] | None = None,
    low_memory: bool | None = None,
) -> Pipeline:
    """The pipeline of an opened bundle.

    Args:
        runtime: what to run on; the profile's own by default. The portable graphs run anywhere but
            for bf16 ones, which need a GPU.
        opened: loads a graph, where something else than this process runs it.
        low_memory: release memory immediately, as the memory plan counts, and be slower; by
            default where the budget has no room for anything else (`has_room`). TensorRT's scratch
            is always released.

    Raises:
        BundleError: the sampler or tokenizer is damaged.
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
    """Whether one who keeps what is freed for what comes next stays within a bundle's budget.

    That takes about twice a pipeline's scratch more than what was planned. Nothing was planned for
    another runtime than the profile's: there the weights of what is loaded together tell, in case
    they are wider here.

    Args:
        besides: bytes that the process takes for something else.
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
    """The sampler table of a request, read when it is first asked for."""

    @cache
    def read(name: str) -> SamplerTable:
        return read_sampler(folder / name)

    def of(request: Request) -> SamplerTable:
        steps = None if request.steps in (None, manifest.sampling.steps) else request.steps
        own = sampler_name((request.height, request.width), steps)
        return read(own if own in manifest.files else sampler_name(steps=steps))

    return of


def engines(manifest: Manifest, role: Role, runtime: Runtime) -> tuple[Engine, ...]:
    """What a runtime loads of a part: one graph, or the two of a decoder that works in tiles."""
    part = manifest.parts[role]
    # Another device's memory is not what the decoder was cut for.
    if runtime is manifest.profile.runtime and part.tiles is not None:
        return part.engines
    if runtime in onnxruntime.PROVIDERS:
        return (Engine(graph=part.fused_attention or part.graph),)
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
    stem, tail = (partial(session, engine) for engine in loaded)
    tile = manifest.placement.tile
    assert part.tiles is not None
    assert tile is not None
    return load_tiled(stem, tail, part.tiles.split, tile)


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
    """A request with the bundle's own settings where none are given.

    Args:
        size: height and width of a picture, in pixels.

    Raises:
        PromptError: it cannot be drawn, or the bundle was built for other sizes or steps.
    """
    settings = manifest.sampling
    own = (settings.height, settings.width)
    built = settings.sizes or (own,)
    height, width = size or own
    if (height, width) not in built:
        raise PromptError(
            f"{manifest.name} was built for pictures of "
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
