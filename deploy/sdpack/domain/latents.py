"""The space of latents between a denoiser and a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, PositiveFloat, PositiveInt, with_config

from sdpack.domain.arrays import Float32Array

COLOURS = 3  # channels of a decoded picture


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """The space a denoiser works in; a manifest stores it as it is.

    Attributes:
        channels: of a latent pixel.
        scaling_factor, shift_factor: what `rescaled` divides by and adds.
        pixels: picture pixels a side of a latent pixel.
    """

    channels: PositiveInt
    scaling_factor: PositiveFloat
    shift_factor: float
    pixels: PositiveInt

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape (C, h, w) of one picture's latents; height and width are in picture pixels."""
        return self.channels, height // self.pixels, width // self.pixels

    def rescaled(self, latents: Float32Array) -> Float32Array:
        """Denoised latents float32 (N, C, h, w), scaled and shifted as the decoder takes them."""
        return latents / self.scaling_factor + self.shift_factor
