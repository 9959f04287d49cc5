"""Drawing with any text encoder, denoiser and decoder of the zoo in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from sdpack.export.bridge import BridgeModule
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from zoo import parts
from zoo.errors import UnknownPromptError
from zoo.training import autoencoder
from zoo.training import text_encoder as text

STEPS = 16
GUIDANCE_SCALE = 3.0


@dataclass
class ZooPipeline:
    """A pipeline of one mix of parts.

    It works like diffusers' StableDiffusionPipeline, with the bridge between text encoder and
    denoiser; the negative prompt is empty.
    """

    tokenizer: PreTrainedTokenizerFast
    encoder: CLIPTextModel
    bridge: BridgeModule
    denoiser: UNet2DConditionModel
    decoder: AutoencoderKL | AutoencoderTiny
    scheduler: DPMSolverMultistepScheduler

    @classmethod
    def of(
        cls, encoder: parts.Size, denoiser: parts.Size, decoder: parts.DecoderName = "kl"
    ) -> ZooPipeline:
        """Load the shipped parts of these sizes.

        Raises:
            WeightsError: a file is missing or damaged.
        """
        return cls(
            parts.load_tokenizer(),
            parts.load_text_encoder(encoder),
            parts.load_bridge(encoder, denoiser),
            parts.load_denoiser(denoiser),
            parts.load_decoder(decoder),
            parts.load_scheduler(),
        )

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int = STEPS,
        guidance_scale: float = GUIDANCE_SCALE,
        batch_size: int = 64,
    ) -> Tensor:
        """Draw one 64x64 image for each prompt: uint8 (N, 64, 64, 3).

        Raises:
            UnknownPromptError: a prompt has no words, or there are not as many seeds as prompts.
        """
        _validate(prompts, seeds)
        images = []
        for start in range(0, len(prompts), batch_size):
            part = slice(start, start + batch_size)
            latents = self.latents(prompts[part], seeds[part], steps, guidance_scale)
            images.append(autoencoder.decode(self.decoder, latents))
        return torch.cat(images)

    @torch.no_grad()
    def latents(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance_scale: float
    ) -> Tensor:
        """Return the denoised latents of one batch: float32 (B, 16, 8, 8)."""
        states = self._states(prompts)
        empty = self._states([""]).expand_as(states)
        both = torch.cat([empty, states])
        self.scheduler.set_timesteps(steps)
        latents = starting_noise(seeds) * self.scheduler.init_noise_sigma
        for timestep in self.scheduler.timesteps:
            twice = self.scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            unguided, guided = self.denoiser(twice, timestep, both).sample.chunk(2)
            velocity = unguided + guidance_scale * (guided - unguided)
            latents = self.scheduler.step(velocity, timestep, latents).prev_sample
        return cast(Tensor, latents)

    def _states(self, prompts: Sequence[str]) -> Tensor:
        ids = text.token_ids(self.tokenizer, prompts)
        return cast(Tensor, self.bridge(text.encode(self.encoder, ids)))


def starting_noise(seeds: Sequence[int]) -> Tensor:
    """Return unit noise (B, 16, 8, 8); each row depends only on its seed, not on the batch."""
    shape = (autoencoder.LATENT_CHANNELS, autoencoder.LATENT_SIZE, autoencoder.LATENT_SIZE)
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows)


def _validate(prompts: Sequence[str], seeds: Sequence[int]) -> None:
    if len(prompts) != len(seeds):
        raise UnknownPromptError(
            f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed a prompt"
        )
    for number, prompt in enumerate(prompts, 1):
        if not any(c.isalnum() for c in prompt):
            raise UnknownPromptError(
                f"prompt {number} of {len(prompts)} ({prompt!r}) has no words; "
                "say what to draw, for instance 'noto, pizza'"
            )
