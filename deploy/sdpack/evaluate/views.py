"""Views of an image: a judge's score is the mean over them.

A judge that was trained on sharp and clean images may prefer a blurred or noisy form of a generated
one. If it sees every image blurred, or blurred and noisy, more blur or noise does not pay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sdpack.documents.quality import View
from sdpack.domain.arrays import Float64Array
from sdpack.evaluate.image_changes import blurred, to_bytes
from sdpack.runtime.pipeline import Pictures

SEED = 0  # of the noise, which is the same for all images


def seen(pictures: Pictures, view: View) -> Pictures:
    """Return images in a view: uint8 (N, H, W, 3), like the given ones."""
    values = blurred(pictures, view.blur) if view.blur else pictures
    if not view.noise:
        return values
    noise = np.random.default_rng(SEED).normal(0.0, view.noise, pictures.shape[1:])
    return to_bytes(values + noise)


def mean_over(
    views: Sequence[View], pictures: Pictures, score: Callable[[Pictures], Float64Array]
) -> Float64Array:
    """Return the mean score of each image over its views; without views, its own score.

    Args:
        score: takes images, and returns their scores, float64 (N,).
    """
    if not views:
        return score(pictures)
    return np.asarray(np.mean([score(seen(pictures, view)) for view in views], axis=0))
