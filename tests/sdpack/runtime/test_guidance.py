from __future__ import annotations

import numpy as np
import pytest
import torch
from sdpack.documents.conditioning import KeptNorm
from sdpack.runtime.guidance import combined, with_norms_of

RNG = np.random.default_rng(0)
HERE, THERE = (RNG.standard_normal((2, 3, 4, 6)).astype(np.float32) for _ in range(2))


def test_a_weight_of_one_is_the_prediction_with_the_prompt() -> None:
    assert combined(HERE, THERE, 1.0, 0.0) == pytest.approx(THERE, abs=1e-6)
    assert combined(HERE, THERE, 0.0, 0.0) == pytest.approx(HERE, abs=1e-6)


def test_a_whole_rescale_keeps_the_standard_deviation_of_each_image() -> None:
    made = combined(HERE, THERE, 7.5, 1.0)
    assert made.std(axis=(1, 2, 3)) == pytest.approx(THERE.std(axis=(1, 2, 3)), rel=1e-5)


def test_norms_are_kept_of_nothing_of_rows_or_of_patches() -> None:
    assert with_norms_of(HERE, THERE, KeptNorm.NONE) is THERE
    rows = with_norms_of(HERE, THERE, KeptNorm.ROW)
    assert np.linalg.norm(rows, axis=-1) == pytest.approx(np.linalg.norm(HERE, axis=-1), rel=1e-5)
    patches = with_norms_of(HERE, THERE, KeptNorm.PATCH)

    def tokens(latents: np.ndarray) -> torch.Tensor:
        """As diffusers packs them."""
        packed = torch.from_numpy(latents).view(2, 3, 2, 2, 3, 2).permute(0, 2, 4, 1, 3, 5)
        return packed.reshape(2, 6, 12)

    wanted = torch.norm(tokens(HERE), dim=-1)
    assert torch.norm(tokens(patches), dim=-1).numpy() == pytest.approx(wanted.numpy(), rel=1e-5)
    cosines = torch.cosine_similarity(tokens(patches), tokens(THERE), dim=-1)
    assert cosines.numpy() == pytest.approx(np.ones((2, 6)), abs=1e-5)
