"""Measures how far images look like those of the same parts in fp32, without a model."""

from __future__ import annotations

import numpy as np

from sdpack.domain.appearance import Appearance
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import difference_estimate
from sdpack.evaluate.image_changes import LUMINANCE
from sdpack.evaluate.metrics import channels_first, structural_similarity
from sdpack.runtime.pipeline import Pictures

FAINT = 1e-3  # contrast of images that are constant but for rounding


def appearance(images: Pictures, wanted: Pictures) -> Appearance:
    """Compare images with those of the same prompts and noise in fp32, both uint8 (N, H, W, 3).

    Colour and sharpness are compared over all images together. Single images may differ, because
    quantization changes what a denoiser draws. The colour offset is what remains of the mean
    difference beyond chance: the end of its 95 % interval that is nearer to zero.
    """
    offsets = images.mean(axis=(1, 2)) - wanted.mean(axis=(1, 2))
    return Appearance(
        similarity=float(
            structural_similarity(channels_first(images), channels_first(wanted)).mean()
        ),
        colour_offset=max(_beyond_chance(channel) for channel in offsets.T),
        sharpness=max(_contrast(images), FAINT) / max(_contrast(wanted), FAINT),
    )


def _beyond_chance(offsets: Float64Array) -> float:
    """How far the 95 % interval of a mean is from zero; 0 if it contains zero."""
    found = difference_estimate(offsets)
    return max(0.0, found.low, -found.high)


def _contrast(images: Pictures) -> float:
    """The root mean square of the second differences of luminance, in levels of 255."""
    grey = images.astype(np.float32) @ LUMINANCE
    inner = grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return float(np.sqrt(np.mean(np.square(inner - around / 4))))
