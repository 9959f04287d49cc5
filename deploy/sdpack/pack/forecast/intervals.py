"""Intervals: figures that are known only within bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A figure between two bounds, `low` <= `high`."""

    low: float
    high: float

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> Interval:
        """Return the product with a non-negative number, or with one between `low` and `high`."""
        return Interval(self.low * low, self.high * (low if high is None else high))

    @property
    def middle(self) -> float:
        """The geometric mean of the bounds."""
        return float((self.low * self.high) ** 0.5)


NOTHING = Interval(0.0, 0.0)


def total(intervals: Iterable[Interval]) -> Interval:
    """Return the sum of intervals."""
    result = NOTHING
    for each in intervals:
        result += each
    return result
