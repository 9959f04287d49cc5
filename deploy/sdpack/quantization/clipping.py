"""Clipping thresholds for tensors that are rounded to int8.

The threshold minimizes the mean squared error over all observed values. An outlier is clipped if
the coarser steps that represent it would cost more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.arrays import Float64Array

MANTISSA_BITS = 6  # of a magnitude that tell its bin, besides the exponent
CUT_BITS = 23 - MANTISSA_BITS  # of an fp32 number's mantissa
CLIPPING_STEPS = 127  # of int8, a side
CANDIDATES = 128

Counts = Float64Array


def bins() -> int:
    """Return the number of bins of `histogram`."""
    return 1 << (31 - CUT_BITS)


def histogram(values: NDArray[Any]) -> Counts:
    """Count magnitudes in bins, float64 (bins(),): 64 to an octave, zeros in the first.

    A bin holds the magnitudes that are equal in the upper bits of their fp32 format, which is many
    times as fast as taking logarithms.
    """
    numbers = np.ascontiguousarray(np.ravel(values), dtype=np.float32)
    places = (numbers.view(np.uint32) & np.uint32(0x7FFFFFFF)) >> np.uint32(CUT_BITS)
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
    used = counts.nonzero()[0]
    counts, centres = counts[used], np.minimum(_centres()[used], largest)
    thresholds = largest * np.arange(1, CANDIDATES + 1) / CANDIDATES
    beyond = np.maximum(0, centres[None, :] - thresholds[:, None]) ** 2
    rounding = (thresholds / levels) ** 2 / 12
    errors = beyond @ counts / counts.sum() + rounding
    best = int(errors.argmin())
    return float(thresholds[best]), float(errors[best])


def mean_square(counts: Counts) -> float:
    """Return the mean square of the counted values."""
    return float(_centres() ** 2 @ counts / counts.sum()) if counts.any() else 0.0


@cache
def _centres() -> Counts:
    bits = (np.arange(bins(), dtype=np.uint32) << CUT_BITS) + np.uint32(1 << (CUT_BITS - 1))
    with np.errstate(invalid="ignore"):  # the last bins are those of NaN
        centres = bits.view(np.float32).astype(np.float64)
    centres[0] = 0.0
    centres[~np.isfinite(centres)] = np.finfo(np.float32).max
    return centres
