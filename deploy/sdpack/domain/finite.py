"""Counts of NaN and infinities in an array, as text for messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def broken_words(values: NDArray[Any]) -> str:
    """Describe the non-finite values of an array: "3 NaN and 1 infinite number of 4,096"."""
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    return counted_words(nan, infinite, values.size)


def counted_words(nan: int, infinite: int, size: int) -> str:
    """Format counts as "3 NaN and 1 infinite number of 4,096"."""
    counts = []
    if nan:
        counts.append(f"{nan:,} NaN")
    if infinite:
        counts.append(f"{infinite:,} infinite number" + ("s" if infinite > 1 else ""))
    return f"{' and '.join(counts)} of {size:,}"
