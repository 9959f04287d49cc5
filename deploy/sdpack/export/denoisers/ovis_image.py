"""Ovis-Image, a relative of Flux.1 without pooled text embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sdpack.export.denoisers.flux import packed, places, unpacked
from sdpack.export.denoisers.wrapper import Wrapper


class OvisImage(Wrapper):
    """Ovis-Image; a word's position is its place in the text, as a row and as a column."""

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        batch, _, height, width = sample.shape
        words = torch.arange(encoder_hidden_states.shape[1], dtype=torch.float32)
        noise = self._run(
            packed(sample),
            encoder_hidden_states,
            (timestep / 1000).expand(batch),
            img_ids=places(height // 2, width // 2),
            txt_ids=pad(torch.stack([words, words], dim=-1), (1, 0)),
        )
        return unpacked(noise, height, width)
