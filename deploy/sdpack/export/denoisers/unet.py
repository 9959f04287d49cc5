"""UNets of Stable Diffusion 1, 2 and XL."""

from __future__ import annotations

from torch import Tensor

from sdpack.export.denoisers.wrapper import Wrapper


class UNet(Wrapper):
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
    ) -> Tensor:
        return self._run(sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond)


class UNetXL(Wrapper):
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor,
        time_ids: Tensor,
        timestep_cond: Tensor | None = None,
    ) -> Tensor:
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self._run(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            added_cond_kwargs=added,
        )
