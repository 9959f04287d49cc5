"""The stage that trains the VAE decoders and computes the latents for later stages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from zoo import parts
from zoo.data import moves
from zoo.training import autoencoder
from zoo.training.kept_files import save_whole, weights_digest
from zoo.training.loop import Schedule
from zoo.training.run import CHANNELS_LAST, TrainingRun

MOVED_VIEWS = 4  # how many moved latents of each row are kept to draw from


@dataclass
class DecoderStage:
    """Trains the decoders; each property is made or resumed on first use."""

    run: TrainingRun
    vae_schedule: Schedule
    tiny_schedule: Schedule

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The jointly trained encoder and decoder, with normalized latents."""
        if self.run.keeps("vae", self.vae_schedule):
            return parts.load_decoder("kl").to(self.run.device, **CHANNELS_LAST)
        torch.manual_seed(0)
        vae = autoencoder.new_kl().to(self.run.device, **CHANNELS_LAST)
        train = self.run.rows(lambda r: r.split == "train")
        size = self.vae_schedule.batch_size

        def loss(step: int, g: torch.Generator) -> Tensor:
            index = train[torch.randint(len(train), (size,), generator=g)]
            x = autoencoder.to_unit(self.run.images[index].to(self.run.device))
            return autoencoder.kl_loss(vae, x, torch.randn(size, 16, 8, 8, generator=g).to(x))

        self.run.fit("vae", vae, lambda: loss, self.vae_schedule)
        vae.eval()
        autoencoder.normalize_latents(vae, autoencoder.encode(vae, self.run.images[train]))
        return vae

    @cached_property
    def latents(self) -> Tensor:
        """Latents of every row of the data set: float32 (N, 16, 8, 8)."""
        path = self.run.folder / f"latents-{weights_digest(self.vae)}.pt"
        if not path.exists():
            save_whole(autoencoder.encode(self.vae, self.run.images).cpu(), path)
        return cast(Tensor, torch.load(path, weights_only=True))

    @cached_property
    def moved_latents(self) -> list[Tensor]:
        """Latents of every row, shifted and scaled, once per view; shaped like `latents`."""
        digest = weights_digest(self.vae)
        paths = [self.run.folder / f"latents-{digest}-moved-{n}.pt" for n in range(MOVED_VIEWS)]
        for number, path in enumerate(paths):
            if not path.exists():
                moved = moves.moved(self.run.images, torch.Generator().manual_seed(70 + number))
                save_whole(autoencoder.encode(self.vae, moved).cpu(), path)
        return [cast(Tensor, torch.load(path, weights_only=True)) for path in paths]

    @cached_property
    def tiny(self) -> AutoencoderTiny:
        """The tiny decoder on the KL encoder's latents, and an encoder that imitates them."""
        if self.run.keeps("tiny", self.tiny_schedule):
            return parts.load_decoder("tiny").to(self.run.device)
        torch.manual_seed(5)
        tiny = autoencoder.new_tiny().to(self.run.device, **CHANNELS_LAST)
        train = self.run.rows(lambda r: r.split == "train")
        size = self.tiny_schedule.batch_size

        def loss(step: int, g: torch.Generator) -> Tensor:
            index = train[torch.randint(len(train), (size,), generator=g)]
            x = autoencoder.to_unit(self.run.images[index].to(self.run.device))
            z = self.latents[index].to(self.run.device)
            z = z + autoencoder.LATENT_NOISE * torch.randn(z.shape, generator=g).to(z)
            return autoencoder.tiny_loss(tiny, x, z)

        self.run.fit("tiny", tiny, lambda: loss, self.tiny_schedule)
        return tiny.eval()
