from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_1samp
from sdpack.domain.estimate import Estimate, difference_estimate, mean_estimate, percentiles

FINITE = st.floats(-1e6, 1e6)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    low, value, high = sorted(draw(st.tuples(FINITE, FINITE, FINITE)))
    return Estimate(value, low, high)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=50))
def test_the_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    estimate = mean_estimate(np.array(values))
    assert min(values) - 1e-9 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.high <= max(values) + 1e-9


def test_the_interval_agrees_with_scipy_s_bootstrap() -> None:
    values = np.random.default_rng(2).random(300)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    mine = mean_estimate(values)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=4e-3)


@pytest.mark.parametrize("count", [2, 4, 40])
def test_the_interval_of_a_difference_is_scipy_s_t_test(count: int) -> None:
    apart = np.random.default_rng(count).normal(0.1, 1, count)
    theirs = ttest_1samp(apart, 0).confidence_interval(0.95)
    mine = difference_estimate(apart)
    assert mine.value == pytest.approx(apart.mean())
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high))


def test_one_difference_alone_has_no_interval() -> None:
    assert difference_estimate(np.array([0.25])) == Estimate(0.25, 0.25, 0.25)
    assert difference_estimate(np.array([0.25])).signed() == "+0.250"


def test_percentiles_are_the_middle_95_percent() -> None:
    # Of 0 to 1000, a fortieth lies below 25 and as much above 975.
    assert percentiles(3.0, list(map(float, range(1001)))) == Estimate(3.0, 25.0, 975.0)


@given(estimates())
def test_the_negative_of_the_negative_is_the_same(estimate: Estimate) -> None:
    negative = -estimate
    assert -negative == estimate
    assert negative.low <= negative.value <= negative.high


@given(estimates(), estimates())
def test_two_estimates_overlap_where_they_share_a_number(one: Estimate, other: Estimate) -> None:
    assert one.overlaps(other) == other.overlaps(one)
    assert one.overlaps(other) == (max(one.low, other.low) <= min(one.high, other.high))


def test_words_have_the_digits_that_are_asked_for() -> None:
    estimate = Estimate(0.0123, -0.0031, 0.0268)
    assert str(estimate) == "0.012 [-0.003, 0.027]"
    assert estimate.to(1) == "0.0 [-0.0, 0.0]"
    assert estimate.signed() == "+0.012 [-0.003, +0.027]"
