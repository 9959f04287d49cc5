"""Attention with rotary embeddings in real numbers, for transformers that keep tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines (N, T, 1, half a head) of each token's angles."""


class Rotations(nn.Module):
    """Rotary embeddings from a model's own tables: a cosine and a sine for each pair.

    Args:
        tables: for each axis of a position, complex (positions, pairs).
    """

    def __init__(self, tables: Sequence[Tensor]) -> None:
        super().__init__()
        self._count = len(tables)
        for axis, table in enumerate(tables):
            self.register_buffer(f"cosines_{axis}", table.real.float().contiguous(), False)
            self.register_buffer(f"sines_{axis}", table.imag.float().contiguous(), False)

    def forward(self, places: Tensor) -> Rotation:
        """Return the rotations of positions, int64 (N, T, axes)."""

        def found(name: str) -> Tensor:
            tables = [getattr(self, f"{name}_{axis}") for axis in range(self._count)]
            rows = [table[places[..., axis]] for axis, table in enumerate(tables)]
            return torch.cat(rows, dim=-1).unsqueeze(2)

        return found("cosines"), found("sines")


class RotaryAttending:
    """A processor for diffusers' attention, with fewer heads of keys than of queries or as many.

    Z-Image calls the rotations freqs_cis, Lumina image_rotary_emb.
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Rotation | None = None,
        image_rotary_emb: Rotation | None = None,
    ) -> Tensor:
        rotation = freqs_cis if image_rotary_emb is None else image_rotary_emb
        assert rotation is not None
        query = attention.to_q(hidden_states).unflatten(-1, (attention.heads, -1))
        width = query.shape[-1]
        key, value = (
            project(hidden_states).unflatten(-1, (-1, width))
            for project in (attention.to_k, attention.to_v)
        )
        if attention.norm_q is not None:
            query, key = attention.norm_q(query), attention.norm_k(key)
        times = attention.heads // key.shape[2]
        query, key = turned(query, rotation), turned(key, rotation)
        if times > 1:
            key, value = (each.repeat_interleave(times, dim=2) for each in (key, value))
        heads = scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=None if attention_mask is None else attention_mask.unsqueeze(1).unsqueeze(1),
        )
        output: Tensor = attention.to_out[0](heads.transpose(1, 2).flatten(2))
        return output


def turned(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair of neighbouring numbers of (N, T, heads, width)."""
    cosines, sines = rotation
    first, second = heads.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.stack(pairs, dim=-1).flatten(-2)


def joined(first: Rotation, second: Rotation) -> Rotation:
    """Join the rotations of two groups of tokens."""
    return torch.cat([first[0], second[0]], dim=1), torch.cat([first[1], second[1]], dim=1)


def image_places(rows: int, columns: int, start: Tensor) -> Tensor:
    """Return positions int64 (N, rows * columns, 3) of an image's tokens.

    Args:
        start: the position on the first axis, (N, 1), which follows the text's.
    """
    down = torch.arange(rows).unsqueeze(1).expand(rows, columns).reshape(-1)
    across = torch.arange(columns).unsqueeze(0).expand(rows, columns).reshape(-1)
    batch = start.shape[0]
    places = [start + torch.zeros_like(down), down.expand(batch, -1), across.expand(batch, -1)]
    return torch.stack(places, dim=-1)


def text_places(text: Tensor, first: int) -> Tensor:
    """Return positions int64 (N, T, 3) of a text's tokens (N, T, width), from `first` on."""
    batch, count, _ = text.shape
    numbers = (first + torch.arange(count)).expand(batch, -1)
    nothing = torch.zeros_like(numbers)
    return torch.stack([numbers, nothing, nothing], dim=-1)
