from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.quantization.clipping import best_threshold, bins, histogram, mean_square


def expected_error(values: np.ndarray, threshold: float) -> float:
    """Mean squared error of int8 rounding after clipping, computed the long way."""
    step = threshold / 127
    rounded = np.clip(np.rint(values / step), -127, 127) * step
    return float(((rounded - values) ** 2).mean())


@given(st.integers(0, 2**32 - 1), st.floats(1, 50))
def test_the_threshold_is_about_the_best_there_is(seed: int, outlier: float) -> None:
    values = np.random.default_rng(seed).standard_normal(20_000)
    values[0] = 4 * outlier
    largest = float(np.abs(values).max())
    chosen, _ = best_threshold(histogram(values), largest)
    tried = largest * np.arange(1, 129) / 128
    best = min(expected_error(values, t) for t in tried)
    assert expected_error(values, chosen) <= 1.1 * best + 1e-12


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100))
def test_every_number_is_counted_once(values: list[float]) -> None:
    counts = histogram(np.array(values))
    assert counts.shape == (bins(),)
    assert counts.sum() == len(values)


@given(st.lists(st.floats(1e-6, 1e6) | st.floats(-1e6, -1e-6), min_size=1, max_size=100))
def test_the_mean_square_is_right_to_half_a_bin(values: list[float]) -> None:
    # A bin spans a 64th of a power of two, so its centre is off by a 128th at most.
    exact = float(np.square(values).mean())
    assert mean_square(histogram(np.array(values))) == pytest.approx(
        exact, rel=(1 + 1 / 128) ** 2 - 0.999
    )


def test_a_tensor_of_zeros_is_not_clipped() -> None:
    assert best_threshold(histogram(np.zeros(4)), 0.0) == (1.0, 0.0)
    assert mean_square(histogram(np.array([]))) == 0.0
