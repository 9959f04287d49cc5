from __future__ import annotations

from types import SimpleNamespace

import torch
from sdpack.evaluate.towers import pooled, scaled_pixels


def test_images_of_any_size_are_scaled_to_the_towers_side() -> None:
    white = torch.full((2, 48, 80, 3), 255, dtype=torch.uint8)
    pixels = scaled_pixels(white, 32)
    assert pixels.shape == (2, 3, 32, 32)
    assert torch.allclose(pixels, torch.ones(()))


def test_pooled_vectors_may_come_alone_or_among_others() -> None:
    vectors = torch.randn(2, 4)
    assert pooled(vectors) is vectors
    assert pooled(SimpleNamespace(pooler_output=vectors)) is vectors
