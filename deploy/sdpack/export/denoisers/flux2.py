"""FLUX.2, whose latents have one token for each latent pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdpack.export.denoisers.flux import places
from sdpack.export.denoisers.wrapper import Wrapper


class Flux2(Wrapper):
    """FLUX.2; a position has four numbers: zero, row, column, and place in the text."""

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        batch, channels, height, width = sample.shape
        words = torch.arange(encoder_hidden_states.shape[1], dtype=torch.float32)
        noise = self._run(
            sample.flatten(2).transpose(1, 2),
            encoder_hidden_states,
            (timestep / 1000).expand(batch),
            img_ids=pad(places(height, width), (0, 1)),
            txt_ids=pad(words.unsqueeze(1), (3, 0)),
            guidance=None,
        )
        return noise.transpose(1, 2).reshape(batch, channels, height, width)
