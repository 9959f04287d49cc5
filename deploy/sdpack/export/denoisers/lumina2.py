"""Lumina-Image 2.

diffusers leaves out the padding of each text of a batch. Here, a mask excludes it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from sdpack.export.denoisers.rotary import (
    RotaryAttending,
    Rotations,
    image_places,
    joined,
    text_places,
)
from sdpack.export.denoisers.wrapper import Wrapper


class Lumina2(Wrapper):
    """Lumina-Image 2; it predicts the negative velocity, at times that run from 0 to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        parts = cast(Any, model)
        for layer in (*parts.noise_refiner, *parts.context_refiner, *parts.layers):
            layer.attn.set_processor(RotaryAttending())
        self.rotations = Rotations(parts.rope_embedder.freqs_cis)
        self._side = int(parts.config.patch_size)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        model, side = cast(Any, self.model), self._side
        batch, channels, height, width = sample.shape
        rows, columns = height // side, width // side
        time = (1 - timestep / 1000).expand(batch)
        condition, text = model.time_caption_embed(sample, time, encoder_hidden_states)
        lengths = encoder_attention_mask.sum(dim=1, keepdim=True)
        is_word = encoder_attention_mask.bool()

        text_turned = self.rotations(text_places(text, 0))
        for layer in model.context_refiner:
            text = layer(text, is_word, text_turned)
        patches = sample.reshape(batch, channels, rows, side, columns, side)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
        image = model.x_embedder(patches)
        image_turned = self.rotations(image_places(rows, columns, lengths))
        for layer in model.noise_refiner:
            image = layer(image, None, image_turned, condition)

        tokens = torch.cat([text, image], dim=1)
        every = torch.ones_like(image[:, :, 0], dtype=torch.bool)
        read, turned = torch.cat([is_word, every], dim=1), joined(text_turned, image_turned)
        for layer in model.layers:
            tokens = layer(tokens, read, turned, condition)
        made: Tensor = model.norm_out(tokens, condition)[:, text.shape[1] :]
        made = made.reshape(batch, rows, columns, side, side, -1).permute(0, 5, 1, 3, 2, 4)
        return -made.reshape(batch, -1, height, width)
