"""Qwen-Image.

diffusers leaves out the mask if all texts of a batch have the same length. Here, it is always an
input.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sdpack.export.denoisers.flux import packed, unpacked
from sdpack.export.denoisers.rotary import Rotation, Rotations, turned
from sdpack.export.denoisers.wrapper import Wrapper

SIDE = 2  # of a token, in latent pixels


class QwenImage(Wrapper):
    """Qwen-Image; positions count from the centre of the image, and go on in the text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        parts = cast(Any, model)
        for block in parts.transformer_blocks:
            block.attn.set_processor(JointAttending())
        positions = parts.pos_embed
        widths = [width // 2 for width in positions.axes_dim]
        self._origin = len(positions.neg_freqs)
        every = torch.cat([positions.neg_freqs, positions.pos_freqs])
        self.rotations = Rotations(every.split(widths, dim=1))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
    ) -> Tensor:
        model = cast(Any, self.model)
        batch, _, height, width = sample.shape
        image = model.img_in(packed(sample))
        text = model.txt_in(model.txt_norm(encoder_hidden_states))
        condition = model.time_text_embed((timestep / 1000).expand(batch), image)
        down, across = _centred(height // SIDE), _centred(width // SIDE)
        first = torch.maximum(down.max(), across.max()) + 1
        places = first + torch.arange(text.shape[1])
        rotations = (self._grid(down, across), self._rotated([places, places, places]))
        is_word = encoder_attention_mask.bool()
        for block in model.transformer_blocks:
            text, image = block(
                hidden_states=image,
                encoder_hidden_states=text,
                encoder_hidden_states_mask=is_word,
                temb=condition,
                image_rotary_emb=rotations,
            )
        return unpacked(model.proj_out(model.norm_out(image, condition)), height, width)

    def _grid(self, down: Tensor, across: Tensor) -> Rotation:
        """Return the rotations of an image's tokens, row by row."""
        rows, columns = down.shape[0], across.shape[0]
        row = down.unsqueeze(1).expand(rows, columns).reshape(-1)
        column = across.unsqueeze(0).expand(rows, columns).reshape(-1)
        return self._rotated([torch.zeros_like(row), row, column])

    def _rotated(self, axes: list[Tensor]) -> Rotation:
        """Return the rotations of positions, given axis by axis."""
        places = torch.stack(axes, dim=-1).unsqueeze(0) + self._origin
        return cast(Rotation, self.rotations(places))


def _centred(count: int) -> Tensor:
    """Return the positions of rows or columns, int64 (count,), with 0 in the middle."""
    return torch.arange(count) - (count - count // 2)


class JointAttending:
    """A processor for diffusers' attention of a text and an image to both."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None,
        encoder_hidden_states_mask: Tensor,
        image_rotary_emb: tuple[Rotation, Rotation],
    ) -> tuple[Tensor, Tensor]:
        of_image, of_text = image_rotary_emb
        heads = attention.heads

        def joint(projections: tuple[Any, Any], norms: tuple[Any, Any] | None = None) -> Tensor:
            """Return a projection of the text's tokens and the image's, (N, heads, T, width)."""
            tokens = (encoder_hidden_states, hidden_states)
            both = []
            for place, (project, given) in enumerate(zip(projections, tokens, strict=True)):
                made = project(given).unflatten(-1, (heads, -1))
                if norms is not None:
                    made = turned(norms[place](made), (of_text, of_image)[place])
                both.append(made)
            return torch.cat(both, dim=1).transpose(1, 2)

        every = torch.ones_like(hidden_states[:, :, 0], dtype=torch.bool)
        is_read = torch.cat([encoder_hidden_states_mask, every], dim=1)
        attended = scaled_dot_product_attention(
            joint(
                (attention.add_q_proj, attention.to_q), (attention.norm_added_q, attention.norm_q)
            ),
            joint(
                (attention.add_k_proj, attention.to_k), (attention.norm_added_k, attention.norm_k)
            ),
            joint((attention.add_v_proj, attention.to_v)),
            attn_mask=is_read.unsqueeze(1).unsqueeze(1),
        )
        tokens = attended.transpose(1, 2).flatten(2)
        count = encoder_hidden_states.shape[1]
        return attention.to_out[0](tokens[:, count:]), attention.to_add_out(tokens[:, :count])
