"""Scores of many mixes on the same prompts, and pairwise comparisons of the mixes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.arrays import Float64Array
from sdpack.evaluate.confidence import half_width, interval, repeated_over_prompts
from sdpack.evaluate.rules import BROKEN_SCORE, Rules

Pairs = NDArray[np.bool_]


class Comparisons:
    """Scores that are added prompt by prompt, and the comparisons they allow.

    Args:
        count: number of mixes; mixes are identified by number.
        slack: possible error of a mix's mean score; it widens every interval.
    """

    def __init__(self, count: int, rules: Rules, slack: float = 0.0) -> None:
        self.rules = rules
        self.seen = np.zeros(count, int)
        self._slack = slack
        self._scores = np.full((count, rules.most), np.nan)
        self._alpha = (1 - rules.confidence) / max(1, count - 1)

    def add(self, mixes: Sequence[int], scores: Float64Array) -> list[int]:
        """Add the next scores of mixes that have equally many scores: float64 (mixes, prompts).

        Returns:
            the mixes that drew a broken picture.
        """
        numbers = list(mixes)
        start = int(self.seen[numbers[0]])
        stop = start + scores.shape[1]
        self._scores[numbers, start:stop] = scores
        self.seen[numbers] = stop
        lowest = scores.min(axis=1)
        return [mix for mix, score in zip(numbers, lowest, strict=True) if score <= BROKEN_SCORE]

    def mean(self, mix: int) -> float:
        """The mean of a mix's scores so far; NaN without scores."""
        seen = self.seen[mix]
        return float(self._scores[mix, :seen].mean()) if seen else float("nan")

    def difference(self, one: int, other: int) -> tuple[float, float, float]:
        """Mean and interval of `one` minus `other` over the prompts both were scored on."""
        seen = int(min(self.seen[one], self.seen[other]))
        scores = self._scores[:, :seen]
        apart = interval(scores[one] - scores[other], self._alpha, self.rules.looks)
        return apart[0], apart[1] - self._slack, apart[2] + self._slack

    def shown_equal(self, one: int, other: int) -> bool:
        """Whether the whole interval lies within the indifference and contains zero."""
        if min(self.seen[one], self.seen[other]) < self.rules.enough:
            return False
        _, low, high = self.difference(one, other)
        return -self.rules.indifference < low <= 0 <= high < self.rules.indifference

    def is_open(self, one: int, other: int) -> bool:
        """Whether `one` was not shown worse, and its mean is not worse by the indifference."""
        difference, _, high = self.difference(one, other)
        return high >= 0 and difference > -self.rules.indifference

    def is_above(self, one: int, other: int) -> bool:
        """Whether `one` has the better mean and `other` was not shown equal to it."""
        return self.difference(one, other)[0] > 0 and not self.shown_equal(one, other)

    def stands_against(self, one: int, other: int) -> bool:
        """Whether `one` prevents `other` from winning."""
        prefer = self.rules.prefer
        open_will_do = prefer.takes_open and self.is_open(other, one)
        return self.is_above(one, other) and not open_will_do

    def equal_pairs(self, mixes: Sequence[int]) -> Pairs:
        """`shown_equal` for all pairs of mixes with equally many scores: bool (mixes, mixes)."""
        if len(mixes) < 2 or self.seen[list(mixes)].min() < self.rules.enough:
            return np.zeros((len(mixes), len(mixes)), bool)
        scores = self._scores_of(mixes)
        prompts = repeated_over_prompts(scores, self.rules.prompts)
        if prompts.shape[1] < 2:
            return np.zeros((len(mixes), len(mixes)), bool)
        together = np.cov(prompts) * (scores.shape[1] / prompts.shape[1])
        alone = np.diag(together)
        spread = np.sqrt(np.maximum(alone[:, None] + alone[None, :] - 2 * together, 0))
        apart = np.abs(scores.mean(1)[:, None] - scores.mean(1)[None, :])
        width = half_width(scores.shape[1], self._alpha, self.rules.looks)
        half = spread * width + self._slack
        return np.asarray((apart <= half) & (apart + half < self.rules.indifference))

    def above_pairs(self, mixes: Sequence[int]) -> Pairs:
        """`is_above` for all pairs of mixes with equally many scores: bool (mixes, mixes)."""
        means = self._scores_of(mixes).mean(axis=1)
        return np.asarray((means[:, None] > means[None, :]) & ~self.equal_pairs(mixes))

    def _scores_of(self, mixes: Sequence[int]) -> Float64Array:
        numbers = list(mixes)
        return np.asarray(self._scores[numbers, : int(self.seen[numbers].min())])
