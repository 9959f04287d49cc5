"""Stable Diffusion 3."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from sdpack.export.denoisers.wrapper import Wrapper


class SD3(Wrapper):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        embedding: Any = model.pos_embed
        model.pos_embed = _Cropped(embedding)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
    ) -> Tensor:
        every = timestep.expand(sample.shape[0])
        return self._run(sample, encoder_hidden_states, pooled_projections, every)


class _Cropped(nn.Module):
    """diffusers' PatchEmbed with positions cropped from the centre of its table, for any size.

    The original, when exported, drops one row too many if the number of rows is odd.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj = embedding.proj
        side = int(embedding.pos_embed_max_size)
        table = embedding.pos_embed.reshape(side, side, -1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        patches = self.proj(latent)
        height, width = patches.shape[-2:]
        table = cast(Tensor, self.table)
        rows = table.index_select(0, _middle(height, table.shape[0]))
        positions = rows.index_select(1, _middle(width, table.shape[1]))
        embedded: Tensor = patches.flatten(2).transpose(1, 2) + positions.reshape(
            1, height * width, -1
        )
        return embedded


def _middle(count: int, of: int) -> Tensor:
    """Return the indices of the middle `count` of `of` items."""
    numbers = torch.arange(count)
    spare = of - torch.ones_like(numbers).sum()
    return numbers + torch.div(spare, 2, rounding_mode="floor")
