"""The space a decoder works in, as its config tells it; nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sdpack.documents.conditioning import Family
from sdpack.domain.latents import LatentSpace
from sdpack.errors import SourceError
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.denoiser_config import USUAL_CHANNELS
from sdpack.export.pipeline_index import CONFIG

# What diffusers takes where a config says nothing.
SCALING_FACTORS = {"AutoencoderKL": 0.18215, "AutoencoderTiny": 1.0}
BLOCK_WIDTH_KEYS = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "decoder_block_out_channels",
}
USUAL_WIDTHS = {"AutoencoderKL": 1, "AutoencoderTiny": 4}
DOUBLING = 2
SHIFTED = frozenset({Family.SD3, Family.FLUX})  # whose pipelines heed a shift_factor


def latents_of(checkpoint: Checkpoint, family: Family) -> LatentSpace:
    """The latents that a decoder takes from a denoiser of a family.

    Raises:
        SourceError: the decoder's config has numbers that make no sense.
    """
    config, name = checkpoint.config, checkpoint.class_name
    try:
        scaling = float(_said(config, "scaling_factor", SCALING_FACTORS[name]))
        shift = float(_said(config, "shift_factor", 0.0)) if family in SHIFTED else 0.0
        channels = int(_said(config, "latent_channels", USUAL_CHANNELS))
        pixels = enlargement(name, config)
    except (TypeError, ValueError) as cause:
        raise SourceError(
            f"{checkpoint.folder / CONFIG} is not valid ({cause}); restore it"
        ) from cause
    for key, number, known in (
        ("scaling_factor", scaling, math.isfinite(scaling) and scaling > 0),
        ("shift_factor", shift, math.isfinite(shift)),
        ("latent_channels", channels, channels > 0),
    ):
        if not known:
            raise SourceError(
                f"{checkpoint.folder / CONFIG}: {key} is {number}, with which latents "
                "cannot be decoded; restore it"
            )
    return LatentSpace(channels=channels, scaling_factor=scaling, shift_factor=shift, pixels=pixels)


def enlargement(class_name: str, config: Mapping[str, Any]) -> int:
    """Picture pixels a side of a latent pixel: a decoder enlarges between each two of its blocks.

    Args:
        class_name: of diffusers.
        config: of the whole autoencoder.
    """
    widths = config.get(BLOCK_WIDTH_KEYS[class_name])
    blocks = USUAL_WIDTHS[class_name] if widths is None else len(widths)
    if blocks < 1:
        raise ValueError(f"{BLOCK_WIDTH_KEYS[class_name]} is empty")
    step = DOUBLING
    if class_name == "AutoencoderTiny":
        step = int(_said(config, "upsampling_scaling_factor", DOUBLING))
    return int(step ** (blocks - 1))


def _said(config: Mapping[str, Any], key: str, usual: float) -> Any:
    value = config.get(key)
    return usual if value is None else value
