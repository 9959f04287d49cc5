"""SANA."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from sdpack.export.denoisers.pixart import Attending
from sdpack.export.denoisers.wrapper import Wrapper
from sdpack.export.linear_attention import LinearAttending


class Sana(Wrapper):
    """SANA; its cross-attention gets one mask for all heads."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        parts = cast(Any, model)
        self._timestep_scale = float(parts.config.timestep_scale)
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
    ) -> Tensor:
        every = timestep.expand(sample.shape[0]) * self._timestep_scale
        return self._run(
            sample,
            encoder_hidden_states,
            every,
            encoder_attention_mask=encoder_attention_mask,
        )
