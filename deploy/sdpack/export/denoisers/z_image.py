"""Z-Image.

diffusers computes each image and text of a batch with its own number of tokens. Here, all have the
same number, and masks exclude those that diffusers would not compute. A text takes as many tokens
as it has words, rounded up to a multiple of 32; the image's positions begin after them.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sdpack.export.denoisers.wrapper import Wrapper
from sdpack.runtime.text_embeddings import TOKEN_MULTIPLE

MULTIPLE = TOKEN_MULTIPLE  # of tokens of an image or a text, with padding tokens at the end
SIDE = 2  # of a token, in latent pixels
PATCH = f"{SIDE}-1"  # key of the layers for such tokens

Rotation = tuple[Tensor, Tensor]


class ZImage(Wrapper):
    """Z-Image; it predicts the negative velocity, at times that run from 0 to 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        parts = cast(Any, model)
        for layer in (*parts.noise_refiner, *parts.context_refiner, *parts.layers):
            layer.attention.set_processor(_Attending())
        self.rotations = _Rotations(parts.rope_embedder)

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
        image_turned = self.rotations(_image_places(rows, columns, whole + 1))
        for layer in model.noise_refiner:
            image = layer(image, image_read, image_turned, condition)
        text, text_read = self._text_tokens(encoder_hidden_states, lengths, whole)
        text_turned = self.rotations(_text_places(text))
        for layer in model.context_refiner:
            text = layer(text, text_read, text_turned)

        tokens = torch.cat([image, text], dim=1)
        read = torch.cat([image_read, text_read], dim=1)
        pairs = zip(image_turned, text_turned, strict=True)
        turned = tuple(torch.cat(pair, dim=1) for pair in pairs)
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


class _Rotations(nn.Module):
    """Rotary embeddings from the model's own tables: a cosine and a sine for each pair."""

    def __init__(self, embedder: Any) -> None:
        super().__init__()
        tables = embedder.precompute_freqs_cis(
            embedder.axes_dims, embedder.axes_lens, theta=embedder.theta
        )
        self._count = len(tables)
        for axis, table in enumerate(tables):
            self.register_buffer(f"cosines_{axis}", table.real.contiguous(), persistent=False)
            self.register_buffer(f"sines_{axis}", table.imag.contiguous(), persistent=False)

    def forward(self, places: Tensor) -> Rotation:
        """Return cosines and sines (N, T, 1, half a head) of positions, int64 (N, T, axes)."""

        def found(name: str) -> Tensor:
            tables = [getattr(self, f"{name}_{axis}") for axis in range(self._count)]
            return torch.cat(
                [table[places[..., axis]] for axis, table in enumerate(tables)], dim=-1
            ).unsqueeze(2)

        return found("cosines"), found("sines")


class _Attending:
    """diffusers' attention processor with rotations in real numbers."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        attention_mask: Tensor,
        freqs_cis: Rotation,
        encoder_hidden_states: Tensor | None = None,
    ) -> Tensor:
        query, key, value = (
            project(hidden_states).unflatten(-1, (attention.heads, -1))
            for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        if attention.norm_q is not None:
            query, key = attention.norm_q(query), attention.norm_k(key)
        heads = scaled_dot_product_attention(
            _turned(query, freqs_cis).transpose(1, 2),
            _turned(key, freqs_cis).transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=attention_mask.unsqueeze(1).unsqueeze(1),
        )
        output: Tensor = attention.to_out[0](heads.transpose(1, 2).flatten(2))
        return output


def _turned(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair of neighbouring numbers of (N, T, heads, width)."""
    cosines, sines = rotation
    first, second = heads.unflatten(-1, (-1, 2)).unbind(-1)
    pairs = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.stack(pairs, dim=-1).flatten(-2)


def _image_places(rows: int, columns: int, start: Tensor) -> Tensor:
    """Return positions int64 (N, rows * columns + spare, 3) of an image's tokens.

    Args:
        start: the position on the first axis, (N, 1), which follows the text's.
    """
    down = torch.arange(rows).unsqueeze(1).expand(rows, columns).reshape(-1)
    across = torch.arange(columns).unsqueeze(0).expand(rows, columns).reshape(-1)
    batch = start.shape[0]
    own = torch.stack(
        [(start + torch.zeros_like(down)), down.expand(batch, -1), across.expand(batch, -1)], dim=-1
    )
    return torch.cat([own, torch.zeros_like(own[:, :1]).expand(-1, MULTIPLE - 1, -1)], dim=1)


def _text_places(text: Tensor) -> Tensor:
    """Return positions int64 (N, T, 3) of a text's tokens, which begin with 1."""
    batch, count, _ = text.shape
    numbers = (1 + torch.arange(count)).expand(batch, -1)
    nothing = torch.zeros_like(numbers)
    return torch.stack([numbers, nothing, nothing], dim=-1)
