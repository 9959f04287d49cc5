from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.evaluate.appearance import appearance
from sdpack.evaluate.image_changes import blurred, to_bytes


def smooth(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    return to_bytes(60 + 0.5 * blurred(noise, 1 / 32))


def test_equal_images_look_alike() -> None:
    found = appearance(smooth(), smooth())
    assert found.similarity == pytest.approx(1)
    assert found.colour_offset == 0
    assert found.sharpness == 1


@given(st.integers(-20, 20))
def test_a_tint_is_measured_in_levels(levels: int) -> None:
    tinted = to_bytes(smooth() + np.array([0, levels, 0]))
    assert appearance(tinted, smooth()).colour_offset == pytest.approx(abs(levels))
    assert appearance(tinted, smooth()).sharpness == pytest.approx(1, abs=0.05)


def test_a_difference_that_averages_out_over_images_is_not_an_offset() -> None:
    images = smooth().astype(float)
    images[:2] += 10
    images[2:] -= 10
    assert appearance(to_bytes(images), smooth()).colour_offset == pytest.approx(0, abs=0.1)


def test_blur_is_softer_and_noise_is_sharper() -> None:
    rng = np.random.default_rng(1)
    assert appearance(blurred(smooth(), 1 / 32), smooth()).sharpness < 0.5
    assert (
        appearance(to_bytes(smooth() + rng.normal(0, 20, (4, 32, 32, 3))), smooth()).sharpness > 2
    )


def test_other_images_are_not_similar() -> None:
    assert appearance(smooth(1), smooth()).similarity < 0.3


def test_constant_images_have_a_sharpness() -> None:
    grey = np.full((1, 16, 16, 3), 99, np.uint8)
    assert appearance(grey, grey).sharpness == 1
