from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.workload import WORKLOAD

SIDES = st.integers(1, 4096)


def test_a_batch_has_about_as_many_pixels_whatever_their_size() -> None:
    assert [WORKLOAD.batch_of(side, side) for side in (64, 128, 256, 512)] == [16, 4, 1, 1]


def test_fewer_large_pictures_calibrate_but_at_least_two() -> None:
    counts = [WORKLOAD.calibration_images_of(side, side) for side in (64, 128, 256, 512)]
    assert counts == [64, 16, 4, 2]


def test_pictures_of_256_pixels_a_side_are_large() -> None:
    assert WORKLOAD.is_large(256, 256)
    assert not WORKLOAD.is_large(255, 256)


@given(SIDES, SIDES)
def test_every_picture_is_drawn_in_a_batch(height: int, width: int) -> None:
    assert WORKLOAD.batch_of(height, width) >= 1
