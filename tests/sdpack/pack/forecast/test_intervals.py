from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.pack.forecast.intervals import NOTHING, Interval, total

numbers = st.floats(0, 1e9)
intervals = st.tuples(numbers, numbers).map(lambda pair: Interval(min(pair), max(pair)))


@given(st.lists(intervals))
def test_a_sum_has_the_sums_of_the_bounds(each: list[Interval]) -> None:
    whole = total(each)
    assert whole.low == pytest.approx(sum(i.low for i in each))
    assert whole.high == pytest.approx(sum(i.high for i in each))


@given(intervals, numbers, numbers)
def test_every_product_of_figures_within_lies_within(
    each: Interval, one: float, two: float
) -> None:
    low, high = min(one, two), max(one, two)
    product = each.times(low, high)
    for figure in (each.low, each.middle, each.high):
        for factor in (low, high):
            assert product.low * (1 - 1e-9) <= figure * factor <= product.high * (1 + 1e-9)


def test_nothing_adds_nothing() -> None:
    assert total([]) == NOTHING
    assert Interval(4, 9).middle == 6  # the geometric mean
