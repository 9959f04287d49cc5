"""Positions of Ovis-Image."""

from __future__ import annotations

import torch
from sdpack.export.denoisers.flux import packed, unpacked
from sdpack.export.denoisers.ovis_image import OvisImage

from tests.e2e.language_families import WIDTH, ovis_image_transformer


def test_tokens_have_the_positions_of_the_pipeline() -> None:
    model = ovis_image_transformer().eval()
    sample, states = torch.randn(2, 4, 6, 10), torch.randn(2, 7, WIDTH)
    words = torch.tensor([[0.0, place, place] for place in range(7)])
    tokens = torch.tensor([[0.0, row, column] for row in range(3) for column in range(5)])
    time = torch.tensor([500.0])
    with torch.no_grad():
        wanted = model(packed(sample), states, time.expand(2) / 1000, tokens, words).sample
        made = OvisImage(model)(sample, time, states)
    assert torch.allclose(made, unpacked(wanted, 6, 10), atol=1e-5)
