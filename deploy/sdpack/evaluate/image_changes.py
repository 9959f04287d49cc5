"""Small changes of images, which views and perturbations share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sdpack.runtime.pipeline import Pictures

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # weights of red, green, blue; BT.601


def each(pictures: Pictures, change: Callable[[Image.Image], Image.Image]) -> Pictures:
    """Return images, uint8 (N, H, W, 3), each changed on its own."""
    changed = (change(Image.fromarray(picture)).convert("RGB") for picture in pictures)
    return np.stack([np.asarray(image) for image in changed])


def blurred(pictures: Pictures, share: float) -> Pictures:
    """Return images blurred with a Gaussian.

    Args:
        share: its standard deviation, as a share of the height.
    """
    blur = ImageFilter.GaussianBlur(share * pictures.shape[1])
    return each(pictures, lambda image: image.filter(blur))


def to_bytes(values: NDArray[np.floating]) -> Pictures:
    """Round and clamp levels of 255."""
    pictures: Pictures = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pictures
