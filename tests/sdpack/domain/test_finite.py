from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.finite import broken_words, counted_words


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_nan_and_infinities_of_both_signs_are_counted(nan: int, infinite: int, finite: int) -> None:
    infinities = [np.inf if n % 2 else -np.inf for n in range(infinite)]
    values = np.array([*[np.nan] * nan, *infinities, *[1.0] * finite])
    assert broken_words(values) == counted_words(nan, infinite, nan + infinite + finite)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((3, 1, 4096), "3 NaN and 1 infinite number of 4,096"),
        ((0, 2, 2), "2 infinite numbers of 2"),
        ((1000, 0, 1000), "1,000 NaN of 1,000"),
    ],
)
def test_words_omit_counts_of_zero(counts: tuple[int, int, int], words: str) -> None:
    assert counted_words(*counts) == words
