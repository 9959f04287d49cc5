"""Clipping thresholds for tensors that are rounded to int8.

The threshold minimizes the mean squared error over all observed values. An outlier is clipped if
the coarser steps that represent it would cost more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.arrays import Float64Array

OCTAVES = (-60, 60)
BINS_AN_OCTAVE = 32
CLIPPING_STEPS = 127  # of int8, a side
CANDIDATES = 128

Counts = Float64Array


def bins() -> int:
    """Return the number of bins of `histogram`."""
    return (OCTAVES[1] - OCTAVES[0]) * BINS_AN_OCTAVE


def histogram(values: NDArray[Any]) -> Counts:
    """Count magnitudes in logarithmic bins, float64 (bins(),); zeros are in the first."""
    magnitudes = np.abs(np.ravel(values)).astype(np.float32)
    lowest = np.float32(2.0 ** OCTAVES[0])
    octave = np.log2(np.maximum(magnitudes, lowest)) - OCTAVES[0]
    places = np.minimum((octave * BINS_AN_OCTAVE).astype(np.int64), bins() - 1)
    return np.bincount(places, minlength=bins()).astype(np.float64)


def best_threshold(
    counts: Counts, largest: float, levels: int = CLIPPING_STEPS
) -> tuple[float, float]:
    """The clipping threshold in (0, largest] with the least expected squared error, and that.

    A value within a threshold t costs (t / levels)² / 12 on average, with `levels` steps on each
    side of zero. A value beyond it costs the square of its distance from t.
    """
    if largest == 0 or not counts.any():
        return 1.0, 0.0
    centres = np.minimum(_centres(), largest)
    thresholds = largest * np.arange(1, CANDIDATES + 1) / CANDIDATES
    beyond = np.maximum(0, centres[None, :] - thresholds[:, None]) ** 2
    rounding = (thresholds / levels) ** 2 / 12
    errors = beyond @ counts / counts.sum() + rounding
    best = int(errors.argmin())
    return float(thresholds[best]), float(errors[best])


def mean_square(counts: Counts) -> float:
    """Return the mean square of the counted values."""
    return float(_centres() ** 2 @ counts / counts.sum()) if counts.any() else 0.0


def _centres() -> Counts:
    centres: Counts = 2.0 ** (OCTAVES[0] + (np.arange(bins()) + 0.5) / BINS_AN_OCTAVE)
    return centres
