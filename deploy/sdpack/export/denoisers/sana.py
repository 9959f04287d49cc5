"""SANA and SANA-Sprint."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from sdpack.export.denoisers.pixart import Attending, Positioned
from sdpack.export.denoisers.wrapper import Wrapper
from sdpack.export.linear_attention import LinearAttending


class Sana(Wrapper):
    """SANA, whose cross-attention gets one mask for all heads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        parts = cast(Any, model)
        self._timestep_scale = float(parts.config.timestep_scale)
        self._guidance_scale = float(parts.config.guidance_embeds_scale)
        if parts.patch_embed.pos_embed is not None:  # as in models for 2048 pixels and more
            parts.patch_embed = Positioned(parts.patch_embed)
        for block in parts.transformer_blocks:
            block.attn1.set_processor(LinearAttending())
            if block.attn2 is not None:
                block.attn2.set_processor(Attending())

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        text = {
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
        }
        if guidance is not None:
            return self._sprint(sample, timestep, guidance, text)
        every = timestep.expand(sample.shape[0]) * self._timestep_scale
        return self._run(sample, timestep=every, **text)

    def _sprint(
        self, sample: Tensor, angle: Tensor, guidance: Tensor, text: dict[str, Tensor]
    ) -> Tensor:
        """Return the prediction of SANA-Sprint, which its scheduler takes.

        The model was trained on the line between image and noise. Its scheduler works on the circle
        through both, on which a time is an angle (Chen et al. 2025, SANA-Sprint).
        """
        batch = sample.shape[0]
        time = torch.sin(angle) / (torch.cos(angle) + torch.sin(angle))
        length = torch.sqrt(time**2 + (1 - time) ** 2)
        given = sample * length
        flow = self._run(
            given,
            timestep=time.expand(batch),
            guidance=(guidance * self._guidance_scale).expand(batch),
            **text,
        )
        return ((1 - 2 * time) * given + (1 - 2 * time + 2 * time**2) * flow) / length
