"""What a mix takes at least, read off configs and file headers before anything is exported."""

from __future__ import annotations

from sdpack.export.checkpoint import Checkpoint
from sdpack.memory.predict import Footprint
from sdpack.pack.mix import Variant
from sdpack.placement import Placement, Role
from sdpack.precision import weight_bits


def least_footprint(
    checkpoint: Checkpoint, variant: Variant, placement: Placement, latent_rows: tuple[int, int]
) -> Footprint:
    """A lower bound of a variant's footprint at batch 1.

    Weights: its parameters at the precision's bits. Activations: the widest convolution's input
    and output, which live together, in the narrowest type.

    Args:
        latent_rows: height and width of a picture's latents.
    """
    weights = checkpoint.parameters * weight_bits(variant.precision) // 8
    return Footprint(weights, _least_activations(checkpoint, variant, placement, latent_rows))


def _least_activations(
    checkpoint: Checkpoint, variant: Variant, placement: Placement, latent_rows: tuple[int, int]
) -> int:
    if variant.role is Role.TEXT_ENCODER:
        return 0
    sides = [min(placement.tile or side, side) for side in latent_rows]
    pixels = sides[0] * sides[1]
    if variant.role is Role.DENOISER:
        return 2 * int(checkpoint.config["block_out_channels"][0]) * pixels
    channels = checkpoint.config.get("decoder_block_out_channels")
    widths = channels or checkpoint.config["block_out_channels"]
    enlarged: int = 4 ** (len(widths) - 1)
    return 2 * int(min(widths)) * pixels * enlarged
