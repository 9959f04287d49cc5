"""Latent spaces of decoders, from their configs alone."""

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

# diffusers' defaults.
SCALING_FACTORS = {
    "AutoencoderKL": 0.18215,
    "AutoencoderTiny": 1.0,
    "AutoencoderKLFlux2": 1.0,
    "AutoencoderDC": 1.0,
    "AutoencoderKLQwenImage": 1.0,
}
BLOCK_WIDTH_KEYS = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "decoder_block_out_channels",
    "AutoencoderKLFlux2": "block_out_channels",
    "AutoencoderDC": "decoder_block_out_channels",
    "AutoencoderKLQwenImage": "dim_mult",
}
USUAL_WIDTHS = {
    "AutoencoderKL": 1,
    "AutoencoderTiny": 4,
    "AutoencoderKLFlux2": 4,
    "AutoencoderDC": 6,
    "AutoencoderKLQwenImage": 4,
}
FLUX2_CHANNELS = 32  # if the config of a FLUX.2 autoencoder names none
FLUX2_PATCH = 2  # side of a latent pixel of FLUX.2, in pixels of its autoencoder
QWEN_WIDTH = 96  # if the config of Qwen-Image's autoencoder names none
QWEN_CHANNELS = 16  # if the config of Qwen-Image's autoencoder names none
DOUBLING = 2
# Families whose pipelines use shift_factor.
SHIFTED = frozenset(
    {
        Family.SD3,
        Family.FLUX,
        Family.CHROMA,
        Family.Z_IMAGE,
        Family.LUMINA2,
        Family.OVIS_IMAGE,
    }
)


def latents_of(checkpoint: Checkpoint, family: Family) -> LatentSpace:
    """The latents that a decoder takes from a denoiser of a family.

    Raises:
        SourceError: the decoder's config has invalid numbers.
    """
    config, name = checkpoint.config, checkpoint.class_name
    try:
        scaling = float(_value(config, "scaling_factor", SCALING_FACTORS[name]))
        shift = float(_value(config, "shift_factor", 0.0)) if family in SHIFTED else 0.0
        channels = latent_channels(name, config)
        pixels = enlargement(name, config)
    except (TypeError, ValueError) as cause:
        raise SourceError(
            f"{checkpoint.folder / CONFIG} is not valid ({cause}); restore it"
        ) from cause
    for key, number, is_valid in (
        ("scaling_factor", scaling, math.isfinite(scaling) and scaling > 0),
        ("shift_factor", shift, math.isfinite(shift)),
        ("latent_channels", channels, channels > 0),
    ):
        if not is_valid:
            raise SourceError(
                f"{checkpoint.folder / CONFIG}: {key} is {number}, with which latents "
                "cannot be decoded; restore it"
            )
    return LatentSpace(channels=channels, scaling_factor=scaling, shift_factor=shift, pixels=pixels)


def latent_channels(class_name: str, config: Mapping[str, Any]) -> int:
    """Return the channels of the latents that a decoder takes.

    FLUX.2 counts the four pixels of a patch as channels.

    Args:
        class_name: diffusers class of the autoencoder.
        config: its config.
    """
    if class_name == "AutoencoderKLFlux2":
        return int(_value(config, "latent_channels", FLUX2_CHANNELS)) * FLUX2_PATCH**2
    if class_name == "AutoencoderKLQwenImage":
        return int(_value(config, "z_dim", QWEN_CHANNELS))
    return int(_value(config, "latent_channels", USUAL_CHANNELS))


def enlargement(class_name: str, config: Mapping[str, Any]) -> int:
    """Return the image pixels per latent pixel along one side.

    A decoder enlarges between every two of its blocks.

    Args:
        class_name: diffusers class of the autoencoder.
        config: its config.
    """
    widths = config.get(BLOCK_WIDTH_KEYS[class_name])
    blocks = USUAL_WIDTHS[class_name] if widths is None else len(widths)
    if blocks < 1:
        raise ValueError(f"{BLOCK_WIDTH_KEYS[class_name]} is empty")
    step = DOUBLING
    if class_name == "AutoencoderTiny":
        step = int(_value(config, "upsampling_scaling_factor", DOUBLING))
    patch = FLUX2_PATCH if class_name == "AutoencoderKLFlux2" else 1
    return int(step ** (blocks - 1)) * patch


def least_channels(class_name: str, config: Mapping[str, Any]) -> int:
    """Return the number of channels of a decoder's narrowest block, which has the most pixels.

    Args:
        class_name: diffusers class of the autoencoder.
        config: its config.
    """
    widths = config.get(BLOCK_WIDTH_KEYS[class_name])
    if class_name == "AutoencoderKLQwenImage":
        return int(_value(config, "base_dim", QWEN_WIDTH)) * int(min(widths or (1,)))
    return 1 if widths is None else int(min(widths))


def _value(config: Mapping[str, Any], key: str, default: float) -> Any:
    value = config.get(key)
    return default if value is None else value
