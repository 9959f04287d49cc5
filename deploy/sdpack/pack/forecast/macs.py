"""Multiply-accumulate operations of a part, from the shapes of its weights.

A convolution or matrix product takes as many operations as its weight has elements, for each
position it is applied to. The names of the weights tell at which resolution they are applied. The
products of attention are not counted; the upper bound allows for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sdpack.domain.placement import Role
from sdpack.pack.forecast.intervals import Interval

ATTENTION = 1.25  # upper bound with attention, as a multiple of the other operations
# Operations per parameter and latent pixel, for parts whose checkpoint is not here. Stable
# Diffusion 1.5's UNet has 0.10 and SDXL's 0.07; a transformer with patches of 2 x 2 has 0.25, plus
# attention.
DENOISER = Interval(0.06, 0.3)
# Stable Diffusion's decoder has 6, and its tiny autoencoder 12.
DECODER = Interval(5.0, 14.0)
ENCODER = Interval(0.6, 1.1)  # per parameter and token; embedding tables take no operations

Shapes = Iterable[tuple[str, tuple[int, ...]]]
Pixels = tuple[int, int]


def macs_of_parameters(role: Role, parameters: int, latents: Pixels, tokens: int) -> Interval:
    """Return the operations of one run on one row, from the number of parameters alone.

    Args:
        latents: height and width of an image's latents.
        tokens: number of tokens of a prompt.
    """
    if role.encodes_text:
        return ENCODER.times(parameters * tokens)
    ratio = DENOISER if role is Role.DENOISER else DECODER
    return ratio.times(parameters * math.prod(latents))


def denoiser_macs(
    shapes: Shapes, config: Mapping[str, Any], latents: Pixels, tokens: int, step: int
) -> Interval:
    """Return the operations of one run of a denoiser on one row.

    Args:
        step: side of a transformer's patch, in latent pixels; not used for a UNet.
    """
    pixels = math.prod(latents)
    blocks = len(config.get("block_out_channels", ()))
    own = 0.0
    for name, shape in shapes:
        positions = float(pixels) / step**2
        if len(shape) < 2 or _is_embedding(name):
            positions = 1.0
        elif re.search(r"attn2\.to_[kv]|context|text|txt_|add_[qkv]_proj|to_add_out", name):
            positions = float(tokens)
        elif blocks:
            positions = pixels / 4 ** _level(name, blocks)
        own += math.prod(shape) * positions if len(shape) > 1 else 0.0
    return Interval(own, own * ATTENTION)


def decoder_macs(shapes: Shapes, config: Mapping[str, Any], latents: Pixels) -> Interval | None:
    """Return the operations of decoding one image; None if the names tell no resolutions."""
    if "up_block_types" not in config:
        return None
    pixels, own = math.prod(latents), 0.0
    blocks = len(config["up_block_types"])
    for name, shape in shapes:
        if len(shape) < 2 or not name.startswith(("decoder.", "post_quant_conv")):
            continue
        scale = 1.0
        match = re.match(r"decoder\.up_blocks\.(\d+)", name)
        if match is not None:
            up = int(match[1]) + ("upsamplers" in name)
            scale = 4.0 ** min(up, blocks - 1)
        elif name.startswith("decoder.conv_out"):
            scale = 4.0 ** (blocks - 1)
        own += math.prod(shape) * pixels * scale
    return Interval(own, own * ATTENTION)


def encoder_macs(shapes: Shapes, tokens: int) -> Interval:
    """Return the operations of encoding one prompt."""
    own = sum(
        math.prod(shape) * tokens
        for name, shape in shapes
        if len(shape) == 2 and "embed" not in name and "shared" not in name
    )
    return Interval(own, own * ATTENTION)


def _level(name: str, blocks: int) -> int:
    """Return how often the latents are halved before a UNet's weight is applied."""
    match = re.match(r"(down|up)_blocks\.(\d+)", name)
    if match is not None:
        number = int(match[2])
        if match[1] == "down":
            return number + ("downsamplers" in name)
        return max(0, blocks - 1 - number - ("upsamplers" in name))
    return blocks - 1 if name.startswith("mid_block") else 0


def _is_embedding(name: str) -> bool:
    """Whether a weight is applied to the timestep or pooled embeddings, once per image."""
    return bool(
        re.search(
            r"time_emb|add_embedding|adaln|norm\d?(_context)?\.linear|_embedder|(img|txt)_mod", name
        )
    )
