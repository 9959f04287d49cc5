from __future__ import annotations

import numpy as np
from sdpack.domain.latents import LatentSpace

SPACE = LatentSpace(channels=4, scaling_factor=0.25, shift_factor=0.5, pixels=8)


def test_the_shape_counts_latent_pixels() -> None:
    assert SPACE.shape(512, 768) == (4, 64, 96)


def test_a_decoder_takes_latents_over_the_factor_plus_the_shift() -> None:
    latents = np.array([[[[1.0]]]], np.float32)
    assert SPACE.rescaled(latents) == 1.0 / 0.25 + 0.5
    assert SPACE.rescaled(latents).dtype == np.float32
