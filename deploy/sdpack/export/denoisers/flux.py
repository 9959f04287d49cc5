"""Flux.1 and Chroma, which pack 2x2 latent pixels into a token."""

from __future__ import annotations

import torch
from torch import Tensor

from sdpack.export.denoisers.wrapper import Wrapper


class Flux(Wrapper):
    """Flux.1."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        batch, _, height, width = sample.shape
        noise = self._run(
            packed(sample),
            encoder_hidden_states,
            pooled_projections,
            (timestep / 1000).expand(batch),
            img_ids=places(height // 2, width // 2),
            txt_ids=torch.zeros(encoder_hidden_states.shape[1], 3),
            guidance=None if guidance is None else guidance.expand(batch),
        )
        return unpacked(noise, height, width)


class Chroma(Wrapper):
    """Chroma, which prefers the tokens of the text and one token of its padding.

    diffusers adds its mask of ones and zeros to the attention scores, so that padding gets a lower
    weight but is not excluded. The same is done here.
    """

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        height, width = sample.shape[2:]
        tokens = packed(sample)
        lengths = encoder_attention_mask.sum(dim=1, keepdim=True)
        is_read = torch.arange(encoder_attention_mask.shape[1]).unsqueeze(0) <= lengths
        every = torch.ones_like(tokens[:, :, 0])
        noise = self._run(
            tokens,
            encoder_hidden_states,
            timestep / 1000,
            img_ids=places(height // 2, width // 2),
            txt_ids=torch.zeros(encoder_hidden_states.shape[1], 3),
            attention_mask=torch.cat([is_read.to(every.dtype), every], dim=1),
        )
        return unpacked(noise, height, width)


def packed(sample: Tensor) -> Tensor:
    """Pack latents (N, C, h, w) into tokens (N, h/2 * w/2, 4 C)."""
    batch, channels, height, width = sample.shape
    rows, columns = height // 2, width // 2
    patches = sample.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, rows * columns, 4 * channels)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return the latents (N, C, height, width) of packed tokens."""
    batch, _, size = tokens.shape
    rows, columns, channels = height // 2, width // 2, size // 4
    patches = tokens.reshape(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, channels, height, width)


def places(rows: int, columns: int) -> Tensor:
    """Return (rows * columns, 3): zero, row and column of each token."""
    down = torch.arange(rows, dtype=torch.float32).unsqueeze(1).expand(rows, columns)
    across = torch.arange(columns, dtype=torch.float32).unsqueeze(0).expand(rows, columns)
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).reshape(-1, 3)
