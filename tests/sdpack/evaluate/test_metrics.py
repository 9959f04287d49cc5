import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sdpack.evaluate import metrics

Floats = NDArray[np.float64]


def test_kid_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)), rng.normal(1, 1, size=(5, 4))

    def k(a: Floats, b: Floats) -> float:
        return float((a @ b / 4 + 1) ** 3)

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
