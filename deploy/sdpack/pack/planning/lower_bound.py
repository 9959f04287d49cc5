"""What a mix takes at least, read off configs and file headers before anything is exported."""

from __future__ import annotations

from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Runtime, weight_bits
from sdpack.domain.tiles import side_of
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.families import widest_numbers
from sdpack.export.latents import enlargement
from sdpack.memory.predict import Footprint
from sdpack.pack.planning.mix import Variant

# What TensorRT-RTX 1.7 plans for one 64x64 matrix product, and for everything larger.
LEAST_SCRATCH = {Runtime.TENSORRT_RTX: 8_192_000}
# A Python process with numpy, Pillow and ONNX Runtime; 90 MiB were seen with CPython 3.11.
LEAST_PROCESS = {Runtime.ONNXRUNTIME_CPU: 64 * 2**20}


def least_footprint(
    checkpoint: Checkpoint,
    variant: Variant,
    placement: Placement,
    latent_rows: tuple[int, int],
    runtime: Runtime,
) -> Footprint:
    """A lower bound of a variant's footprint at batch 1.

    Weights: its parameters at the precision's bits. Activations: the widest convolution's input
    and output, which live together, in the narrowest type; or the runtime's least scratch.

    Args:
        latent_rows: height and width of a picture's latents.
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
    channels = checkpoint.config.get("decoder_block_out_channels")
    widths = channels or checkpoint.config["block_out_channels"]
    enlarged = enlargement(checkpoint.class_name, checkpoint.config) ** 2
    return 2 * int(min(widths)) * pixels * enlarged
