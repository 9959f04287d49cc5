from __future__ import annotations

import numpy as np
from sdpack.evaluate.confidence import interval


def test_the_interval_holds_at_every_look_at_once() -> None:
    """Of 400 sequences, at most about 5 % may ever leave the truth outside between 16 and 512."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(400):
        values = rng.normal(0.1, 1.0, 512)
        looks = [interval(values[:n], 0.05) for n in (16, 32, 64, 128, 256, 512)]
        missed += any(not low <= 0.1 <= high for _, low, high in looks)
    assert missed <= 0.05 * 400


def test_the_interval_narrows_as_it_should() -> None:
    values = np.random.default_rng(1).normal(0, 1, 400)
    widths = [high - low for _, low, high in (interval(values[:n], 0.05) for n in (25, 400))]
    assert 0.2 < widths[1] / widths[0] < 0.5
    assert interval(np.array([0.3]), 0.05)[1:] == (-np.inf, np.inf)
