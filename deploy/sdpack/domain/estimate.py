"""Means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sdpack.domain.arrays import Float64Array

BOOTSTRAPS = 1000
ENOUGH = 16  # prompts needed to report a difference; with fewer, intervals miss the mean too often


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def to(self, digits: int) -> str:
        """Format the mean and its interval with this many decimals."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def signed(self, digits: int = 3) -> str:
        """Format a difference: "+0.012 [-0.003, +0.027]"; omits an interval of width zero."""
        if self.low == self.high:
            return f"{self.value:+.{digits}f}"
        low, high = (f"{bound:+.{digits}f}" for bound in (self.low, self.high))
        return f"{self.value:+.{digits}f} [{low}, {high}]"

    def __str__(self) -> str:
        return self.to(3)

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, -self.high, -self.low)

    def overlaps(self, other: Estimate) -> bool:
        return self.low <= other.high and other.low <= self.high


def percentiles(value: float, resampled: Sequence[float] | Float64Array) -> Estimate:
    """Return a value with the 2.5th and 97.5th percentile of its resampled values."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high))


def mean_estimate(values: Float64Array, seed: int = 0) -> Estimate:
    """Return the mean over prompts, with an interval from resampling the prompts."""
    rng = np.random.default_rng(seed)
    index = rng.integers(len(values), size=(BOOTSTRAPS, len(values)))
    return percentiles(values.mean(), values[index].mean(axis=1))


def difference_estimate(apart: Float64Array) -> Estimate:
    """Return the mean of paired differences with Student's t interval (width zero for one value).

    Small samples are common here, and resampling them gives intervals that miss the mean far too
    often (one in five for 4 differences). A mean over prompts is close enough to normal for t.
    """
    from scipy.stats import t

    mean, count = float(apart.mean()), len(apart)
    if count < 2:
        return Estimate(mean, mean, mean)
    half = float(t.ppf(0.975, count - 1) * apart.std(ddof=1) / count**0.5)
    return Estimate(mean, mean - half, mean + half)
