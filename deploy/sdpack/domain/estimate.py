"""Means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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


def over_prompts(scores: Float64Array, which: Sequence[Hashable]) -> Float64Array:
    """Return a value for each prompt, whose mean and its standard error are those of the scores.

    Images of the same prompt resemble each other, so they count as one sample of the prompts
    (the variance of a mean over clusters: Cameron and Miller 2015, "A practitioner's guide to
    cluster-robust inference").

    Args:
        scores: float64 (..., n).
        which: n values that are equal for scores of the same prompt.

    Returns:
        float64 (..., prompts); the scores themselves if each has a prompt of its own.
    """
    numbers: dict[Hashable, int] = {}
    of_each = [numbers.setdefault(each, len(numbers)) for each in which]
    count, prompts = len(of_each), len(numbers)
    if prompts == count:
        return scores
    mean = scores.mean(axis=-1, keepdims=True)
    is_of = np.asarray(of_each)[:, None] == np.arange(prompts)
    return np.asarray(mean + (scores - mean) @ is_of * (prompts / count))


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
