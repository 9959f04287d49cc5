from __future__ import annotations

import numpy as np
from PIL import Image
from sdpack.evaluate.image_changes import blurred, each, to_bytes

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (3, 16, 24, 3)).astype(np.uint8)


def test_each_image_is_changed_on_its_own() -> None:
    turned = each(PICTURES, lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert (turned == PICTURES[:, :, ::-1]).all()
    grey = each(PICTURES, lambda image: image.convert("L"))
    assert grey.shape == PICTURES.shape


def test_a_blur_is_relative_to_the_height_and_keeps_what_is_even() -> None:
    assert (blurred(np.full((1, 16, 16, 3), 77, np.uint8), 0.1) == 77).all()
    more, less = (blurred(PICTURES, share).std() for share in (0.1, 0.03))
    assert more < less < PICTURES.std()


def test_levels_are_rounded_and_clamped() -> None:
    levels = to_bytes(np.array([-3.0, 0.6, 254.4, 300.0]))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [0, 1, 254, 255]
