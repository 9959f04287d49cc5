"""Operations read off weights, against those that PyTorch counts while the models run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from sdpack.domain.placement import Role
from sdpack.pack.forecast.macs import (
    decoder_macs,
    denoiser_macs,
    encoder_macs,
    macs_of_parameters,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

LATENTS, TOKENS = (32, 24), 77
SD15 = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}


def counted(model: nn.Module, *inputs: Any, **named: Any) -> float:
    """Multiply-accumulate operations, of which a FLOP is half."""
    with FlopCounterMode(display=False) as counter:
        model(*inputs, **named)
    return float(counter.get_total_flops() / 2)


def shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in model.named_parameters()]


@pytest.fixture(autouse=True)
def _meta() -> Any:
    with torch.device("meta"):
        yield


def latents(channels: int) -> torch.Tensor:
    return torch.zeros(1, channels, *LATENTS)


def test_a_unet_at_full_size() -> None:
    unet = UNet2DConditionModel(**SD15, attention_head_dim=8)
    real = counted(unet, latents(4), torch.zeros(1), torch.zeros(1, TOKENS, 768))
    bounds = denoiser_macs(shapes(unet), unet.config, LATENTS, TOKENS, step=8)
    assert bounds.low <= real <= bounds.high
    guessed = macs_of_parameters(Role.DENOISER, unet.num_parameters(), LATENTS, TOKENS)
    assert guessed.low <= real <= guessed.high


def test_transformers_of_three_families() -> None:
    width = {"num_attention_heads": 4, "attention_head_dim": 64, "num_layers": 2}
    pixart = PixArtTransformer2DModel(
        **width, in_channels=4, out_channels=8, sample_size=64, cross_attention_dim=256,
        caption_channels=512, use_additional_conditions=False,
    )  # fmt: skip
    sizes = {"resolution": None, "aspect_ratio": None}
    real = counted(
        pixart, latents(4), encoder_hidden_states=torch.zeros(1, TOKENS, 512),
        timestep=torch.zeros(1), added_cond_kwargs=sizes,
    )  # fmt: skip
    bounds = denoiser_macs(shapes(pixart), pixart.config, LATENTS, TOKENS, step=2)
    assert 0.9 * bounds.low <= real <= bounds.high
    sd3 = SD3Transformer2DModel(
        **width, caption_projection_dim=256, joint_attention_dim=512, pooled_projection_dim=64,
    )  # fmt: skip
    states, pooled = torch.zeros(1, TOKENS, 512), torch.zeros(1, 64)
    real = counted(sd3, latents(16), states, pooled, torch.zeros(1))
    bounds = denoiser_macs(shapes(sd3), sd3.config, LATENTS, TOKENS, step=2)
    assert 0.8 * bounds.low <= real <= bounds.high
    flux = FluxTransformer2DModel(
        num_layers=1, num_single_layers=2, num_attention_heads=4, attention_head_dim=64,
        joint_attention_dim=512, pooled_projection_dim=64, axes_dims_rope=(16, 24, 24),
    )  # fmt: skip
    packed = LATENTS[0] * LATENTS[1] // 4
    real = counted(
        flux, torch.zeros(1, packed, 64), states, pooled, torch.zeros(1),
        torch.zeros(packed, 3), torch.zeros(TOKENS, 3),
    )  # fmt: skip
    bounds = denoiser_macs(shapes(flux), flux.config, LATENTS, TOKENS, step=2)
    assert 0.7 * bounds.low <= real <= 1.4 * bounds.high, "texts and latents share its blocks"


def test_a_decoder_at_full_size() -> None:
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        vae.decode(latents(4))
    bounds = decoder_macs(shapes(vae), vae.config, LATENTS)
    assert bounds is not None
    assert bounds.low <= counter.get_total_flops() / 2 <= bounds.high
    own = sum(value.numel() for name, value in vae.named_parameters() if "decoder" in name)
    guessed = macs_of_parameters(Role.DECODER, own, LATENTS, TOKENS)
    assert guessed.low <= counter.get_total_flops() / 2 <= guessed.high
    assert decoder_macs(shapes(vae), {}, LATENTS) is None, "an autoencoder of another class"


def test_a_text_encoder() -> None:
    config = CLIPTextConfig(hidden_size=512, intermediate_size=2048, num_attention_heads=8)
    encoder = CLIPTextModel(config)
    real = counted(encoder, torch.zeros(1, TOKENS, dtype=torch.long))
    bounds = encoder_macs(shapes(encoder), TOKENS)
    assert bounds.low <= real <= bounds.high
