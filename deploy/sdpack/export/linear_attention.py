"""Linear attention of SANA and of its autoencoder, in a form that no precision breaks.

diffusers adds 1e-15 to the denominators, which is zero in fp16, and which exporters take for zero.
Where a denominator is zero, so is the numerator: the attention is then zero here, too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return values weighted by the products of non-negative queries and keys.

    Args:
        query, key, value: float (..., width, T).
    """
    scores = torch.matmul(pad(value, (0, 0, 0, 1), value=1.0), key.transpose(-1, -2))
    both = torch.matmul(scores, query)
    weights = both[..., -1:, :]
    return both[..., :-1, :] / torch.where(weights > 0, weights, torch.ones_like(weights))


class LinearAttending:
    """An attention processor for SANA's self-attention."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        query, key, value = (
            project(hidden_states) for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        if attention.norm_q is not None:
            query = attention.norm_q(query)
        if attention.norm_k is not None:
            key = attention.norm_k(key)
        query, key, value = (
            each.transpose(1, 2).unflatten(1, (attention.heads, -1)) for each in (query, key, value)
        )
        heads = linear_attention(relu(query), relu(key), value)
        output: Tensor = attention.to_out[0](heads.flatten(1, 2).transpose(1, 2))
        return output


class MultiscaleAttending:
    """An attention processor for the autoencoder, which attends at several scales.

    diffusers has a second form for small images, which gives the same numbers.
    """

    def __call__(self, attention: Any, hidden_states: Tensor) -> Tensor:
        batch, _, height, width = hidden_states.shape
        pixels = hidden_states.movedim(1, -1)
        own = torch.cat(
            [attention.to_q(pixels), attention.to_k(pixels), attention.to_v(pixels)], dim=-1
        ).movedim(-1, 1)
        scales = torch.cat([own, *(block(own) for block in attention.to_qkv_multiscale)], dim=1)
        heads = scales.reshape(batch, -1, 3 * attention.attention_head_dim, height * width)
        query, key, value = heads.chunk(3, dim=2)
        attended = linear_attention(
            attention.nonlinearity(query), attention.nonlinearity(key), value
        )
        mixed = attention.to_out(attended.reshape(batch, -1, height, width).movedim(1, -1))
        if attention.norm_type == "rms_norm":
            normed = attention.norm_out(mixed).movedim(-1, 1)
        else:
            normed = attention.norm_out(mixed.movedim(-1, 1))
        output: Tensor = normed + hidden_states if attention.residual_connection else normed
        return output


def attend_linearly(model: nn.Module) -> None:
    """Replace the processors of an autoencoder's linear attention."""
    from diffusers.models.attention_processor import SanaMultiscaleLinearAttention

    for module in model.modules():
        if isinstance(module, SanaMultiscaleLinearAttention):
            module.processor = MultiscaleAttending()
