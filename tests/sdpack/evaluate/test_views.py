from __future__ import annotations

import numpy as np
import pytest
from sdpack.documents.quality import View
from sdpack.evaluate.views import mean_over, seen

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)


def test_a_view_without_changes_is_the_image() -> None:
    assert (seen(PICTURES, View()) == PICTURES).all()


def test_a_view_blurs_and_then_adds_the_same_noise_to_every_image() -> None:
    blurred = seen(PICTURES, View(blur=1 / 16))
    assert blurred.dtype == np.uint8
    assert blurred.std() < PICTURES.std() / 2
    grey = np.full((2, 32, 32, 3), 128, np.uint8)
    noisy = seen(grey, View(noise=8)).astype(float)
    assert noisy.std() == pytest.approx(8, rel=0.1)
    assert (noisy[0] == noisy[1]).all()
    assert (noisy == seen(grey, View(noise=8))).all()
    assert seen(PICTURES, View(blur=1 / 16, noise=8)).std() < PICTURES.std()


def test_the_score_is_the_mean_over_the_views() -> None:
    def brightest(pictures: np.ndarray) -> np.ndarray:
        return np.asarray(pictures.max(axis=(1, 2, 3)), float)

    views = (View(blur=1 / 16), View(noise=20))
    wanted = np.mean([brightest(seen(PICTURES, view)) for view in views], axis=0)
    assert mean_over(views, PICTURES, brightest) == pytest.approx(wanted)
    assert mean_over((), PICTURES, brightest) == pytest.approx(brightest(PICTURES))
