"""A lower bound on the memory of a mix, from configs and file headers, before any export."""

from __future__ import annotations

from collections.abc import Callable

from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Runtime, weight_bits
from sdpack.domain.tiles import side_of
from sdpack.errors import InfeasibleError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import widest_numbers
from sdpack.export.latents import enlargement, least_channels
from sdpack.memory.predict import Footprint
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import MemoryEstimates, fit
from sdpack.pack.planning.mix import Mix, Variant

# TensorRT-RTX 1.7 plans this much for a single 64x64 matrix product, and no less for any graph.
LEAST_SCRATCH = {Runtime.TENSORRT_RTX: 8_192_000}
# A Python process with numpy, Pillow and ONNX Runtime; it took 90 MiB with CPython 3.11.
LEAST_PROCESS = {Runtime.ONNXRUNTIME_CPU: 64 * 2**20}


def least_footprints(candidates: Candidates) -> Callable[[Variant, Placement], Footprint]:
    """A function that gives a lower bound on a variant's footprint in a placement."""
    runtime = candidates.request.runtime

    def least(variant: Variant, placement: Placement) -> Footprint:
        checkpoint = candidates.checkpoint(variant.role, variant.candidate)
        rows = (0, 0)
        if not variant.role.encodes_text:
            rows = candidates.latent_rows(variant.role, variant.candidate)
        return least_footprint(checkpoint, variant, placement, rows, runtime)

    return least


def may_fit(candidates: Candidates, mix: Mix) -> bool:
    """Whether the lower bounds of a mix's parts leave it possible that the mix fits."""
    request = candidates.request
    memory = MemoryEstimates(least_footprints(candidates), LEAST_PROCESS.get(request.runtime, 0))
    try:
        fit([mix], candidates.placements[-1:], memory, request.budget)
    except InfeasibleError:
        return False
    return True


def least_footprint(
    checkpoint: Checkpoint,
    variant: Variant,
    placement: Placement,
    latent_rows: tuple[int, int],
    runtime: Runtime,
) -> Footprint:
    """A lower bound on a variant's footprint at batch 1.

    Its weights are the parameters at the precision's bits. Its activations are the input and the
    output of the widest convolution, which are alive together, in 16 bits, or the runtime's least
    scratch if that is more.

    Args:
        latent_rows: height and width of an image's latents.
    """
    weights = checkpoint.parameters * weight_bits(variant.precision) // 8
    activations = _least_activations(checkpoint, variant, placement, latent_rows)
    return Footprint(weights, max(activations, LEAST_SCRATCH.get(runtime, 0)))


def _least_activations(
    checkpoint: Checkpoint, variant: Variant, placement: Placement, latent_rows: tuple[int, int]
) -> int:
    if variant.role.encodes_text:
        return 0
    if variant.role is Role.DENOISER:
        return 2 * widest_numbers(checkpoint, latent_rows[0] * latent_rows[1])
    sides = [side_of(side, placement.tile or side, halo=0) for side in latent_rows]
    pixels = sides[0] * sides[1]
    name, config = checkpoint.class_name, checkpoint.config
    return 2 * least_channels(name, config) * pixels * enlargement(name, config) ** 2
