"""The space of latents between a denoiser and a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ConfigDict, PositiveFloat, PositiveInt, with_config

from sdpack.domain.arrays import Float32Array

COLOURS = 3  # channels of a decoded image


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """The latent space of a denoiser, as stored in a manifest.

    Attributes:
        channels: number of channels.
        scaling_factor, shift_factor: divisor and offset of `rescaled`.
        pixels: image pixels per latent pixel and side.
    """

    channels: PositiveInt
    scaling_factor: PositiveFloat
    shift_factor: float
    pixels: PositiveInt

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape (C, h, w) of one image's latents; height and width are in image pixels."""
        return self.channels, height // self.pixels, width // self.pixels

    def rescaled(self, latents: Float32Array) -> Float32Array:
        """Return latents float32 (N, C, h, w), scaled and shifted for the decoder."""
        return latents / self.scaling_factor + self.shift_factor
