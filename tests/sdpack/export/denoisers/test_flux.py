"""Tokens and positions of Flux.1, and the mask of Chroma."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline
from hypothesis import given
from hypothesis import strategies as st
from sdpack.export.denoisers.flux import Chroma, packed, places, unpacked

from tests.e2e import families
from tests.e2e.language_families import chroma_transformer

sides = st.integers(1, 4).map(lambda side: 2 * side)


@given(st.integers(1, 2), st.integers(1, 3), sides, sides)
def test_tokens_are_packed_as_diffusers_packs_them(
    batch: int, channels: int, height: int, width: int
) -> None:
    latents = torch.randn(batch, channels, height, width)
    tokens = packed(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, batch, channels, height, width))
    assert torch.equal(unpacked(tokens, height, width), latents)
    device = torch.device("cpu")
    ids = FluxPipeline._prepare_latent_image_ids(1, height // 2, width // 2, device, torch.float32)
    assert torch.equal(places(height // 2, width // 2), ids)


def test_chroma_prefers_the_text_and_one_token_of_padding() -> None:
    model = chroma_transformer().eval()
    sample, states = torch.randn(2, 4, 4, 6), torch.randn(2, 5, 2 * families.WIDTH)
    mask = torch.tensor([[1] * 5, [1, 1, 0, 0, 0]])
    time = torch.tensor([500.0])
    read = torch.tensor([[1.0] * 5, [1.0, 1.0, 1.0, 0.0, 0.0]])
    with torch.no_grad():
        wanted = model(
            packed(sample),
            states,
            time.expand(2) / 1000,
            img_ids=places(2, 3),
            txt_ids=torch.zeros(5, 3),
            attention_mask=torch.cat([read, torch.ones(2, 6)], dim=1),
        ).sample
        made = Chroma(model)(sample, time, states, mask)
    assert torch.allclose(made, unpacked(wanted, 4, 6), atol=1e-5)
