"""UNets get what their pipelines give them."""

from __future__ import annotations

import torch
from sdpack.export.denoisers.unet import UNet, UNetXL

from tests.e2e import families

SAMPLE, TIME = torch.randn(2, 4, 8, 8), torch.tensor([7.0])
STATES = torch.randn(2, 5, families.WIDTH)


def test_a_unet_gets_the_embedding_of_the_guidance_scale() -> None:
    model = families.unet(time_cond_proj_dim=8).eval()
    scale = torch.randn(2, 8)
    with torch.no_grad():
        wanted = model(SAMPLE, TIME, STATES, timestep_cond=scale).sample
        assert torch.equal(UNet(model)(SAMPLE, TIME, STATES, scale), wanted)
        assert not torch.equal(UNet(model)(SAMPLE, TIME, STATES), wanted)


def test_a_unet_of_sdxl_gets_sizes_and_pooled_embeddings() -> None:
    model = families.sdxl()["unet"].eval()
    states = torch.randn(2, 5, families.WIDTH + 24)
    added = {"text_embeds": torch.randn(2, 24), "time_ids": torch.rand(2, 6) * 64}
    with torch.no_grad():
        wanted = model(SAMPLE, TIME, states, added_cond_kwargs=added).sample
        assert torch.equal(UNetXL(model)(SAMPLE, TIME, states, **added), wanted)
