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


def test_a_large_text_encoder_is_calibrated_on_fewer_texts_one_by_one() -> None:
    clip, klein = (123_060_480, 77), (3_114_000_000, 512)
    assert WORKLOAD.calibration_texts_of(*clip) > 512
    assert WORKLOAD.calibration_batch_of(*clip) == WORKLOAD.batch
    assert 8 <= WORKLOAD.calibration_texts_of(*klein) < 20
    assert WORKLOAD.calibration_batch_of(*klein) == 1
    assert WORKLOAD.calibration_texts_of(10**11, 1000) == WORKLOAD.fewest_calibration_texts
