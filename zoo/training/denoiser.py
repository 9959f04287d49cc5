"""The denoisers S, M, L and the bridges that connect every text encoder to every denoiser.

A denoiser predicts velocity (Salimans & Ho 2022) on a cosine noise schedule. Each batch uses
one of the three encoders, chosen at random, with the bridge of that pair. One training run
therefore trains three pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from sdpack.export.bridge import BridgeModule
from torch import Tensor, nn

from zoo.training.autoencoder import LATENT_CHANNELS, LATENT_SIZE

TRAIN_TIMESTEPS = 1000
TEXT_DROPOUT = 0.1


@dataclass(frozen=True)
class DenoiserSize:
    channels: tuple[int, int]
    cross_attention_dim: int
    heads: int


DENOISER_SIZES = {
    "s": DenoiserSize((32, 64), 64, 4),
    "m": DenoiserSize((64, 112), 128, 4),
    "l": DenoiserSize((96, 192), 192, 4),
}


def new_denoiser(size: str) -> UNet2DConditionModel:
    """An untrained denoiser of size "s", "m" or "l"."""
    shape = DENOISER_SIZES[size]
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=shape.channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=shape.cross_attention_dim,
        attention_head_dim=shape.heads,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        # The pooled text also steers every block through the time embedding: a small model
        # learns what to draw far sooner than by cross-attention alone.
        addition_embed_type="text",
        addition_embed_type_num_heads=shape.heads,
    )


def new_scheduler() -> DPMSolverMultistepScheduler:
    """Return the scheduler that the zoo ships: DPM-Solver++ 2M (Lu et al. 2022) for 16 steps."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
        lambda_min_clipped=-5.1,
        algorithm_type="dpmsolver++",
        solver_order=2,
    )


class Texts:
    """Hidden states of every training text, stored once: rows of float16 (16, width)."""

    def __init__(self, states: Tensor, empty: Tensor) -> None:
        self.states = states
        self.empty = empty

    @property
    def width(self) -> int:
        return self.states.shape[-1]

    def batch(self, index: Tensor, dropped: Tensor) -> Tensor:
        """Return states (B, 16, width) in fp32; dropped rows have those of the empty prompt."""
        states = self.states[index.to(self.states.device)].float()
        return torch.where(dropped.to(states.device)[:, None, None], self.empty.float(), states)


class Pairs(nn.Module):
    """One denoiser with its three bridges, trained together."""

    def __init__(self, denoiser: UNet2DConditionModel, encoder_widths: Sequence[int]) -> None:
        super().__init__()
        self.denoiser = denoiser
        wanted = cast(Any, denoiser.config).cross_attention_dim
        self.bridges = nn.ModuleList(BridgeModule(width, wanted) for width in encoder_widths)

    def forward(self, noisy: Tensor, timesteps: Tensor, states: Tensor, encoder: int) -> Tensor:
        """Return the velocity (B, 16, 8, 8) predicted with the states of encoder `encoder`."""
        return cast(Tensor, self.denoiser(noisy, timesteps, self.bridges[encoder](states)).sample)


@dataclass(frozen=True)
class Batch:
    """The data of one training step: clean latents, indices of texts, and the dropped texts."""

    latents: Tensor
    text: Tensor
    dropped: Tensor


def velocity_loss(
    pairs: Pairs, alphas_cumprod: Tensor, batch: Batch, texts: Sequence[Texts], g: torch.Generator
) -> Tensor:
    """Return the mean squared velocity error at stratified timesteps, for a random encoder."""
    clean = batch.latents
    count, device = len(clean), clean.device
    strata = (torch.arange(count) + torch.rand(count, generator=g)) / count
    timesteps = (strata * TRAIN_TIMESTEPS).long().clamp_max(TRAIN_TIMESTEPS - 1).to(device)
    noise = torch.randn(clean.shape, generator=g).to(device)
    kept = alphas_cumprod[timesteps].sqrt()[:, None, None, None]
    lost = (1 - alphas_cumprod[timesteps]).sqrt()[:, None, None, None]
    encoder = int(torch.randint(len(texts), (), generator=g))
    states = texts[encoder].batch(batch.text, batch.dropped)
    noisy = (kept * clean + lost * noise).contiguous(memory_format=torch.channels_last)
    seen: Tensor = pairs(noisy, timesteps, states, encoder)
    wanted: Tensor = kept * noise - lost * clean
    error = seen.float() - wanted
    return error.square().mean()
