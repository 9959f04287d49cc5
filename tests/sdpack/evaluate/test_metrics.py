import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.estimate import mean_estimate
from sdpack.evaluate import metrics


def test_kid_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(1, 1, size=(5, 4))
    k = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    seen = metrics.kid(torch.from_numpy(x), torch.from_numpy(y))
    assert seen.value == pytest.approx(1000 * (xx + yy - 2 * xy))


def test_kid_of_one_distribution_is_near_zero_and_its_interval_holds_zero() -> None:
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.normal(size=(200, 8))) for _ in range(2))
    same, other = metrics.kid(x, y), metrics.kid(x, y + 1)
    assert same.low < 0 < same.high
    assert other.low > same.high


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=50))
def test_the_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    estimate = mean_estimate(np.array(values))
    assert min(values) - 1e-9 <= estimate.low <= estimate.value + 1e-9
    assert estimate.value - 1e-9 <= estimate.high <= max(values) + 1e-9


def test_the_interval_agrees_with_scipy_s_bootstrap() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(2).random(300)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    mine = mean_estimate(values)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=4e-3)
