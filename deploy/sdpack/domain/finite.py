"""Words for numbers that are none: how many NaN and infinities an array holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def broken_words(values: NDArray[Any]) -> str:
    """ "3 NaN and 1 infinite number of 4,096"; of an array that holds some."""
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    return counted_words(nan, infinite, values.size)


def counted_words(nan: int, infinite: int, size: int) -> str:
    """ "3 NaN and 1 infinite number of 4,096"."""
    found = []
    if nan:
        found.append(f"{nan:,} NaN")
    if infinite:
        found.append(f"{infinite:,} infinite number" + ("s" if infinite > 1 else ""))
    return f"{' and '.join(found)} of {size:,}"
