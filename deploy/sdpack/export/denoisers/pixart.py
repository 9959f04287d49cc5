"""PixArt Alpha and Sigma."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn

from sdpack.export.denoisers.wrapper import Wrapper


class PixArt(Wrapper):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config: Any = model.config
        self.learns_variance = config.out_channels == 2 * config.in_channels
        embedding: Any = model.pos_embed
        model.pos_embed = Positioned(embedding)
        cast(Any, model).set_attn_processor(Attending())

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> Tensor:
        noise: Tensor = self._run(
            sample,
            encoder_hidden_states,
            timestep.expand(sample.shape[0]),
            encoder_attention_mask=encoder_attention_mask,
            added_cond_kwargs={"resolution": resolution, "aspect_ratio": aspect_ratio},
        )
        if not self.learns_variance:
            return noise
        predicted, _ = noise.chunk(2, dim=1)
        return predicted


class Attending:
    """diffusers' attention processor, with one mask for all heads.

    The original repeats the mask for every head and reshapes it, which cannot be traced with
    dynamic sizes.
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attention.to_q(hidden_states),
            attention.to_k(context),
            attention.to_v(context),
        )
        if attention.norm_q is not None:
            query, key = attention.norm_q(query), attention.norm_k(key)
        query, key, value = (
            each.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for each in (query, key, value)
        )
        mask = None if attention_mask is None else attention_mask.unsqueeze(1)
        heads = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = attention.to_out[0](heads.transpose(1, 2).flatten(2))
        return output


class Positioned(nn.Module):
    """diffusers' PatchEmbed with positions computed in the graph, for any size.

    The original computes them while it is traced, for one size.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj = embedding.proj
        self._patch = embedding.patch_size
        self._base = embedding.base_size
        self._scale = embedding.interpolation_scale
        width = embedding.proj.out_channels // 4
        frequencies = 10000.0 ** (-torch.arange(width, dtype=torch.float64) / width)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        patches = self.proj(latent)
        height, width = patches.shape[-2:]
        down, across = self._angles(height), self._angles(width)
        # Four arrays (height, width, channels / 4); diffusers puts x before y.
        grid = [
            wave.unsqueeze(axis).expand(height, width, -1)
            for angles, axis in ((across, 0), (down, 1))
            for wave in (angles.sin(), angles.cos())
        ]
        positions = torch.cat(grid, dim=-1).reshape(1, height * width, -1)
        embedded: Tensor = patches.flatten(2).transpose(1, 2) + positions
        return embedded

    def _angles(self, side: int) -> Tensor:
        frequencies = cast(Tensor, self.frequencies)
        places = torch.arange(side, dtype=torch.float32) * (self._base / side) / self._scale
        angles: Tensor = places.unsqueeze(1) * frequencies.unsqueeze(0)
        return angles


@contextmanager
def squeezes_checked() -> Iterator[None]:
    """Make `squeeze` of an axis longer than 1 do nothing while tracing, as it does in PyTorch."""
    squeeze = torch.Tensor.squeeze

    def checked(tensor: Tensor, *axes: int) -> Tensor:
        if len(axes) == 1 and tensor.shape[axes[0]] != 1:
            return tensor
        return squeeze(tensor, *axes)

    with mock.patch.object(torch.Tensor, "squeeze", checked):
        yield
