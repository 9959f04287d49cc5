"""Loading a bundle as a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TypedDict, Unpack

from sdpack.documents.layout import sampler_name, tokenizer_name
from sdpack.documents.manifest import Engine, Manifest
from sdpack.documents.profile import Size, format_size
from sdpack.domain.placement import Loading, Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines import onnxruntime, tensorrt_session
from sdpack.engines.session import Session
from sdpack.engines.tensorrt_builder import TENSORRT_PACKAGES
from sdpack.errors import BundleError, PromptError
from sdpack.runtime.pipeline import Pipeline, Request
from sdpack.runtime.sampler import SamplerTable, read_sampler
from sdpack.runtime.tiling import load_tiled
from sdpack.runtime.tokenizer import PromptTokenizer

# Memory that a process which keeps freed memory takes beyond the plan: times the planned scratch,
# and a constant.
KEPT_SCRATCH, KEPT_BYTES = 2, 32 * 2**20
# Memory on a runtime that nothing was planned for: times the weights, and a constant.
UNPLANNED_WEIGHTS, UNPLANNED_BYTES = 3, 512 * 2**20


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
        runtime: default: the profile's. The portable graphs run on every runtime, except bf16 ones,
            which need a GPU.
        threads: number of CPU threads; default: all cores.
        opened: loads a graph, if another process runs it.
        low_memory: release memory immediately, as the memory plan assumes, at the cost of speed;
            default: if the budget leaves no room to keep it (`has_room`). TensorRT's scratch is
            always released.

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
    return Pipeline(
        loaders,
        {
            role: PromptTokenizer(folder / tokenizer_name(role), part.tokens)
            for role, part in manifest.parts.items()
            if role.encodes_text
        },
        tables(folder, manifest),
        manifest.latents,
        manifest.placement,
        manifest.conditioning,
    )


def has_room(manifest: Manifest, runtime: Runtime, besides: int = 0) -> bool:
    """Whether a process that keeps freed memory for later stays within a bundle's budget.

    Such a process needs about twice the pipeline's scratch memory in addition to the plan. A
    bundle has no plan for runtimes other than the profile's. For these, the estimate is a multiple
    of the weights that are loaded together, which may be wider on that runtime.

    Args:
        besides: bytes that the process uses for other purposes.
    """
    memory = manifest.memory
    if runtime is manifest.profile.runtime:
        most = memory.predicted_bytes + KEPT_SCRATCH * memory.activation_bytes + KEPT_BYTES
    else:
        winner = manifest.evidence.winner
        weights = winner.weights.values()
        phased = manifest.placement.loading is Loading.PHASED
        loaded = max(weights, default=0) if phased else sum(weights)
        most = UNPLANNED_WEIGHTS * loaded + UNPLANNED_BYTES
    return most + besides <= memory.budget_bytes


def tables(folder: Path, manifest: Manifest) -> Callable[[Request], SamplerTable]:
    """Returns the sampler table of a request; each is read once, when it is first needed."""

    @cache
    def read(name: str) -> SamplerTable:
        return read_sampler(folder / name)

    def of(request: Request) -> SamplerTable:
        steps = None if request.steps in (None, manifest.sampling.steps) else request.steps
        own = sampler_name((request.height, request.width), steps)
        return read(own if own in manifest.files else sampler_name(steps=steps))

    return of


def engines(manifest: Manifest, role: Role, runtime: Runtime) -> tuple[Engine, ...]:
    """The engines a runtime loads for a part: one, or the two of a tiled decoder."""
    part = manifest.parts[role]
    # The decoder was split for the memory of the profile's device only.
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


class SamplingOverrides(TypedDict, total=False):
    """Settings of a request in place of the bundle's own; None, too, keeps the bundle's.

    Attributes:
        size: height and width of a picture, in pixels.
    """

    guidance_scale: float | None
    negative_prompt: str | None
    size: Size | None
    steps: int | None


def request(
    manifest: Manifest,
    prompts: list[str],
    seeds: list[int],
    **overrides: Unpack[SamplingOverrides],
) -> Request:
    """A request to a bundle.

    Raises:
        PromptError: the request is invalid, or the bundle was not built for this size or these
            steps.
    """
    settings = manifest.sampling
    scale, negative = overrides.get("guidance_scale"), overrides.get("negative_prompt")
    size, steps = overrides.get("size"), overrides.get("steps")
    height, width = size or (settings.height, settings.width)
    _check_supported(manifest, (height, width), steps)
    return Request(
        prompts,
        seeds,
        settings.guidance_scale if scale is None else scale,
        height,
        width,
        settings.negative_prompt if negative is None else negative,
        settings.guidance_rescale,
        steps,
    )


def _check_supported(manifest: Manifest, size: Size, steps: int | None) -> None:
    sizes, known = manifest.sampling.supported_sizes, manifest.sampling.supported_steps
    if size not in sizes:
        raise PromptError(
            f"{manifest.name} was built for images of "
            f"{', '.join(map(format_size, sizes))} pixels, not {format_size(size)}; "
            "choose one of these, or build with --size"
        )
    if steps is not None and steps not in known:
        raise PromptError(
            f"{manifest.name} has no sampler table for {steps} steps, only for "
            f"{', '.join(map(str, known))}; choose one of these, or build with --steps"
        )
