from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.picture_scaling import SCALING

SIDES = st.integers(1, 4096)


def test_a_batch_has_about_as_many_pixels_whatever_their_size() -> None:
    assert [SCALING.batch_of(side, side) for side in (64, 128, 256, 512)] == [16, 4, 1, 1]


def test_fewer_large_pictures_calibrate_but_at_least_two() -> None:
    counts = [SCALING.calibration_pictures_of(side, side) for side in (64, 128, 256, 512)]
    assert counts == [64, 16, 4, 2]


def test_pictures_of_256_pixels_a_side_are_large() -> None:
    assert SCALING.is_large(256, 256)
    assert not SCALING.is_large(255, 256)


@given(SIDES, SIDES)
def test_every_picture_is_drawn_in_a_batch(height: int, width: int) -> None:
    assert SCALING.batch_of(height, width) >= 1
