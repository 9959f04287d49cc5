"""Positions of FLUX.2."""

from __future__ import annotations

import torch
from diffusers import Flux2KleinPipeline
from sdpack.export.denoisers.flux2 import Flux2

from tests.e2e.language_families import WIDTH, klein_transformer


def test_tokens_have_the_positions_of_the_pipeline() -> None:
    model = klein_transformer().eval()
    sample, states = torch.randn(2, 16, 3, 5), torch.randn(2, 7, 3 * WIDTH)
    time = torch.tensor([500.0])
    with torch.no_grad():
        wanted = model(
            Flux2KleinPipeline._pack_latents(sample),
            states,
            time.expand(2) / 1000,
            img_ids=Flux2KleinPipeline._prepare_latent_ids(sample),
            txt_ids=Flux2KleinPipeline._prepare_text_ids(states),
            guidance=None,
        ).sample
        made = Flux2(model)(sample, time, states)
    assert torch.allclose(made, wanted.transpose(1, 2).reshape(2, 16, 3, 5), atol=1e-5)
