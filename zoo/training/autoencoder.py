"""The VAEs: an `AutoencoderKL`, and a much smaller `AutoencoderTiny` for the same latents.

Latents are 8x8x16 for a 64x64 image. After training, their mean and deviation are folded into the
1x1 convolutions on either side of the latent space, so that they have zero mean and unit
variance per channel and `scaling_factor` is 1.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

LATENT_CHANNELS = 16
LATENT_SIZE = 8
KL_WEIGHT = 1e-3
LATENT_NOISE = 0.05  # added to latents a decoder is trained on, since no denoiser is exact


def new_kl() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        mid_block_add_attention=False,
        sample_size=64,
        scaling_factor=1.0,
        force_upcast=False,
    )


def new_tiny() -> AutoencoderTiny:
    return AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(40, 40, 40, 40),
        num_encoder_blocks=(0, 1, 1, 1),
        num_decoder_blocks=(3, 2, 1, 0),
        scaling_factor=1.0,
    )


def to_unit(images: Tensor) -> Tensor:
    """uint8 (B, 64, 64, 3) to float32 (B, 3, 64, 64) in [-1, 1], channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_bytes(images: Tensor) -> Tensor:
    """float (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3), clamped and rounded."""
    return images.float().clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1)


def reconstruction_loss(seen: Tensor, wanted: Tensor) -> Tensor:
    """L1 for crisp edges plus squared error for PSNR, over (B, 3, H, W) in [-1, 1]."""
    error = seen.float() - wanted
    return error.abs().mean() + error.square().mean()


def kl_loss(vae: AutoencoderKL, images: Tensor, noise: Tensor) -> Tensor:
    """Return the joint loss of encoder and decoder on `images` in [-1, 1]."""
    posterior = vae.encode(images).latent_dist
    latents = posterior.mean + posterior.std * noise
    divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    reconstruction = cast(Tensor, vae.decode(latents).sample)
    total: Tensor = reconstruction_loss(reconstruction, images) + KL_WEIGHT * divergence
    return total


def tiny_loss(tiny: AutoencoderTiny, images: Tensor, latents: Tensor) -> Tensor:
    """Return the tiny decoder's reconstruction loss, and its encoder's distance from `latents`."""
    reconstruction = cast(Tensor, tiny.decode(latents).sample)
    imitation = cast(Tensor, tiny.encode(images).latents)
    return reconstruction_loss(reconstruction, images) + 0.1 * (imitation - latents).square().mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, batch_size: int = 128) -> Tensor:
    """Return the posterior means of uint8 (N, 64, 64, 3) images: float32 (N, 16, 8, 8)."""
    batches = [to_unit(part).to(vae.device) for part in images.split(batch_size)]
    return torch.cat([vae.encode(batch).latent_dist.mean for batch in batches])


@torch.no_grad()
def decode(vae: AutoencoderKL | AutoencoderTiny, latents: Tensor, batch_size: int = 128) -> Tensor:
    """Decode latents (N, 16, 8, 8) to images: uint8 (N, 64, 64, 3)."""
    return torch.cat([to_bytes(vae.decode(part).sample) for part in latents.split(batch_size)])


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, latents: Tensor) -> None:
    """Fold the per-channel mean and deviation of `latents` into the convolutions around them.

    Afterwards `encode` returns zero mean and unit variance per channel for the same images, and
    reconstructions are unchanged.
    """
    mean = latents.mean(dim=(0, 2, 3))
    std = latents.std(dim=(0, 2, 3))
    quant, post = cast(nn.Conv2d, vae.quant_conv), cast(nn.Conv2d, vae.post_quant_conv)
    channels = len(mean)
    assert quant.bias is not None
    assert post.bias is not None
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the log-variances move with the means
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]


def psnr(seen: Tensor, wanted: Tensor) -> Tensor:
    """Return the PSNR in dB of each uint8 (N, H, W, 3) image and its original: float32 (N,)."""
    error = (seen.float() - wanted.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255.0**2 / error.clamp_min(1e-3))
