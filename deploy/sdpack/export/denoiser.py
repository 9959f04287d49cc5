"""Denoisers of every family as graphs of one kind.

    sample (N, C, h, w), timestep (1,), encoder_hidden_states (N, T, width), and the family's other
    conditioning, to out_sample (N, C, h, w)

Family-specific details stay inside the graph: packing of Flux's latents, positional embeddings,
the learned variance that PixArt's pipeline discards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast
from unittest import mock

import torch
from optimum.utils.input_generators import DummyTimestepInputGenerator
from optimum.utils.normalized_config import NormalizedConfig
from torch import Tensor, nn

from sdpack.documents.conditioning import Conditioning, Family, Input
from sdpack.export.families import denoiser_sizes
from sdpack.export.graph import CHECKED_AT, Shape

TIMESTEPS = 1000
TOKENS = 24
SEQUENCE = "sequence"

_LATENTS = {0: "batch", 2: "height", 3: "width"}
_STATES = {0: "batch", 1: SEQUENCE}
_ROWS = {0: "batch"}


class _Wrapper(nn.Module):
    """Base class: a model with its family's inputs as keyword arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def _run(self, *arguments: Any, **more: Any) -> Tensor:
        output: Tensor = self.model(*arguments, **more, return_dict=False)[0]
        return output


class _UNet(_Wrapper):
    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
    ) -> Tensor:
        return self._run(sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond)


class _UNetXL(_Wrapper):
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


class _SD3(_Wrapper):
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


class _PixArt(_Wrapper):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config: Any = model.config
        self.learns_variance = config.out_channels == 2 * config.in_channels
        embedding: Any = model.pos_embed
        model.pos_embed = _Positioned(embedding)
        cast(Any, model).set_attn_processor(_Attending())

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> Tensor:
        noise: Tensor = self._run(
            sample,
            encoder_hidden_states,
            timestep.expand(sample.shape[0]),
            encoder_attention_mask=encoder_attention_mask,
            added_cond_kwargs={"resolution": resolution, "aspect_ratio": aspect_ratio},
        )
        if not self.learns_variance:
            return noise
        predicted, _ = noise.chunk(2, dim=1)
        return predicted


class _Attending:
    """diffusers' attention processor, with one mask for all heads.

    The original repeats the mask for every head and reshapes it, which cannot be traced with
    dynamic sizes.
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            project(states).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for project, states in (
                (attention.to_q, hidden_states),
                (attention.to_k, context),
                (attention.to_v, context),
            )
        )
        mask = None if attention_mask is None else attention_mask.unsqueeze(1)
        heads = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = attention.to_out[0](heads.transpose(1, 2).flatten(2))
        return output


class _Positioned(nn.Module):
    """diffusers' PatchEmbed with positions computed in the graph, for any size.

    The original computes them while it is traced, for one size.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj = embedding.proj
        self._patch = embedding.patch_size
        self._base = embedding.base_size
        self._scale = embedding.interpolation_scale
        width = embedding.proj.out_channels // 4
        frequencies = 10000.0 ** (-torch.arange(width, dtype=torch.float64) / width)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        patches = self.proj(latent)
        height, width = patches.shape[-2:]
        down, across = self._angles(height), self._angles(width)
        # Four arrays (height, width, channels / 4); diffusers puts x before y.
        grid = [
            wave.unsqueeze(axis).expand(height, width, -1)
            for angles, axis in ((across, 0), (down, 1))
            for wave in (angles.sin(), angles.cos())
        ]
        positions = torch.cat(grid, dim=-1).reshape(1, height * width, -1)
        embedded: Tensor = patches.flatten(2).transpose(1, 2) + positions
        return embedded

    def _angles(self, side: int) -> Tensor:
        frequencies = cast(Tensor, self.frequencies)
        places = torch.arange(side, dtype=torch.float32) * (self._base / side) / self._scale
        angles: Tensor = places.unsqueeze(1) * frequencies.unsqueeze(0)
        return angles


class _Flux(_Wrapper):
    """Packs 2x2 latent pixels into a token, and passes each token's position."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        pooled_projections: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        batch, channels, height, width = sample.shape
        rows, columns = height // 2, width // 2
        packed = sample.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
        noise = self._run(
            packed.reshape(batch, rows * columns, 4 * channels),
            encoder_hidden_states,
            pooled_projections,
            (timestep / 1000).expand(batch),
            img_ids=_places(rows, columns),
            txt_ids=torch.zeros(encoder_hidden_states.shape[1], 3),
            guidance=None if guidance is None else guidance.expand(batch),
        )
        tokens = noise.reshape(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return tokens.reshape(batch, channels, height, width)


def _places(rows: int, columns: int) -> Tensor:
    """Return (rows * columns, 3): zero, row and column of each token."""
    down = torch.arange(rows, dtype=torch.float32).unsqueeze(1).expand(rows, columns)
    across = torch.arange(columns, dtype=torch.float32).unsqueeze(0).expand(rows, columns)
    return torch.stack([torch.zeros_like(down), down, across], dim=-1).reshape(-1, 3)


WRAPPERS: Mapping[Family, Callable[[nn.Module], nn.Module]] = {
    Family.SD: _UNet,
    Family.SDXL: _UNetXL,
    Family.SD3: _SD3,
    Family.PIXART: _PixArt,
    Family.FLUX: _Flux,
}


class DenoiserPart:
    """A denoiser ready for export; it modifies the model."""

    outputs = ("out_sample",)

    def __init__(self, model: nn.Module, conditioning: Conditioning) -> None:
        self._conditioning = conditioning
        self._config: Any = model.config
        self.module = WRAPPERS[conditioning.family](model).eval()
        special: Mapping[Input, Mapping[int, str]] = {Input.MASK: _STATES, Input.GUIDANCE: {}}
        self.dynamic: Mapping[str, Mapping[int, str]] = {
            "sample": _LATENTS,
            "timestep": {},
            "encoder_hidden_states": _STATES,
            **{name.value: special.get(name, _ROWS) for name in conditioning.inputs},
        }

    def inputs(self, shape: Shape) -> dict[str, Tensor]:
        sizes = denoiser_sizes(
            self._conditioning,
            self._config,
            shape.batch,
            (shape.height, shape.width),
            TOKENS,
        )
        tensors = {name: torch.randn(size) for name, size in sizes.items()}
        tensors["timestep"] = _timestep()
        if Input.MASK in self._conditioning.inputs:
            tensors[Input.MASK] = _mask(*sizes[Input.MASK])
        return tensors

    @property
    def checked_at(self) -> Sequence[Shape]:
        """Shapes to check the export at; transformers also get an odd number of patches."""
        is_unet = self._conditioning.family in (Family.SD, Family.SDXL)
        return CHECKED_AT if is_unet else (*CHECKED_AT, Shape(1, 6, 10))

    def tracing(self) -> AbstractContextManager[None]:
        """Return a context in which the model can be traced."""
        pixart = self._conditioning.family is Family.PIXART
        return _squeezes_checked() if pixart else nullcontext()


def _timestep() -> Tensor:
    config = NormalizedConfig(_Vocabulary())
    generator = DummyTimestepInputGenerator("semantic-segmentation", config)
    timesteps: Tensor = generator.generate("timestep")
    return timesteps.reshape(-1)[:1].float()


class _Vocabulary:
    """A config for optimum's timestep generator, which draws from `vocab_size`."""

    vocab_size = TIMESTEPS
    num_channels = text_embeds_hidden_size = 1


def _mask(batch: int, tokens: int) -> Tensor:
    """Return the mask of padded texts of random lengths: int64 (batch, tokens)."""
    lengths = torch.randint(1, tokens + 1, (batch, 1))
    return (torch.arange(tokens).unsqueeze(0) < lengths).long()


@contextmanager
def _squeezes_checked() -> Iterator[None]:
    """Make `squeeze` of an axis longer than 1 do nothing while tracing, as it does in PyTorch."""
    squeeze = torch.Tensor.squeeze

    def checked(tensor: Tensor, *axes: int) -> Tensor:
        if len(axes) == 1 and tensor.shape[axes[0]] != 1:
            return tensor
        return squeeze(tensor, *axes)

    with mock.patch.object(torch.Tensor, "squeeze", checked):
        yield
