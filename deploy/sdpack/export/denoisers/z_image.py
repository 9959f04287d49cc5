"""Z-Image.

diffusers computes each image and text of a batch with its own number of tokens. Here, all have the
same number, and masks exclude those that diffusers would not compute. A text takes as many tokens
as it has words, rounded up to a multiple of 32; the image's positions begin after them.
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
from sdpack.runtime.text_embeddings import TOKEN_MULTIPLE

MULTIPLE = TOKEN_MULTIPLE  # of tokens of an image or a text, with padding tokens at the end
SIDE = 2  # of a token, in latent pixels
PATCH = f"{SIDE}-1"  # key of the layers for such tokens


class ZImage(Wrapper):
    """Z-Image; it predicts the negative velocity, at times that run from 0 to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        parts = cast(Any, model)
        for layer in (*parts.noise_refiner, *parts.context_refiner, *parts.layers):
            layer.attention.set_processor(RotaryAttending())
        embedder = parts.rope_embedder
        self.rotations = Rotations(
            embedder.precompute_freqs_cis(
                embedder.axes_dims, embedder.axes_lens, theta=embedder.theta
            )
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        model = cast(Any, self.model)
        batch, _, height, width = sample.shape
        rows, columns = height // SIDE, width // SIDE
        time = ((1000 - timestep) / 1000).expand(batch)
        condition = model.t_embedder(time * model.t_scale)
        lengths = encoder_attention_mask.sum(dim=1, keepdim=True)
        whole = torch.div(lengths + MULTIPLE - 1, MULTIPLE, rounding_mode="floor") * MULTIPLE

        image, image_read = self._image_tokens(sample)
        image_turned = self.rotations(_with_spare(image_places(rows, columns, whole + 1)))
        for layer in model.noise_refiner:
            image = layer(image, image_read, image_turned, condition)
        text, text_read = self._text_tokens(encoder_hidden_states, lengths, whole)
        text_turned = self.rotations(text_places(text, 1))
        for layer in model.context_refiner:
            text = layer(text, text_read, text_turned)

        tokens = torch.cat([image, text], dim=1)
        read = torch.cat([image_read, text_read], dim=1)
        turned = joined(image_turned, text_turned)
        for layer in model.layers:
            tokens = layer(tokens, read, turned, condition)
        made: Tensor = model.all_final_layer[PATCH](tokens[:, : rows * columns], c=condition)
        patches = made.reshape(batch, rows, columns, SIDE, SIDE, -1).permute(0, 5, 1, 3, 2, 4)
        return -patches.reshape(batch, -1, height, width)

    def _image_tokens(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (N, T, width) of an image, and which are attended to, bool (N, T)."""
        model = cast(Any, self.model)
        batch, channels, height, width = sample.shape
        rows, columns = height // SIDE, width // SIDE
        patches = sample.reshape(batch, channels, rows, SIDE, columns, SIDE)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)
        tokens = model.all_x_embedder[PATCH](patches)
        spare = model.x_pad_token.unsqueeze(0).expand(batch, MULTIPLE - 1, -1)
        own = torch.ones_like(tokens[:, :, 0], dtype=torch.bool)
        count = own[:1].sum(dim=1, keepdim=True)
        more = torch.remainder(-count, MULTIPLE)
        filled = torch.arange(MULTIPLE - 1).unsqueeze(0) < more
        return torch.cat([tokens, spare], 1), torch.cat([own, filled.expand(batch, -1)], 1)

    def _text_tokens(self, states: Tensor, lengths: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (N, T, width) of a text, and which are attended to, bool (N, T).

        Args:
            states: the text encoder's states.
            lengths: number of tokens of each text, (N, 1).
            whole: the same, rounded up.
        """
        model = cast(Any, self.model)
        numbers = torch.arange(states.shape[1]).unsqueeze(0)
        is_word = (numbers < lengths).unsqueeze(-1)
        tokens = torch.where(is_word, model.cap_embedder(states), model.cap_pad_token)
        return tokens, numbers < whole


def _with_spare(places: Tensor) -> Tensor:
    """Add the positions of the padding tokens, which are all zero."""
    spare = torch.zeros_like(places[:, :1]).expand(-1, MULTIPLE - 1, -1)
    return torch.cat([places, spare], dim=1)
