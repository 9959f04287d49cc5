from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.estimate import difference_estimate, mean_estimate
from sdpack.report.paired import mean_score, paired

SCORES = st.dictionaries(st.integers(0, 9), st.floats(-1, 1))


@given(SCORES, SCORES)
def test_pairs_are_of_the_same_images(one: dict[int, float], other: dict[int, float]) -> None:
    apart, back = paired(one, other), paired(other, one)
    assert apart.numbers == sorted(one.keys() & other.keys())
    assert np.allclose(apart.apart, -back.apart)


@given(SCORES.filter(bool))
def test_images_with_prompts_of_their_own_are_samples_of_their_own(own: dict[int, float]) -> None:
    found = paired(own, dict.fromkeys(own, 0.0))
    assert found.estimate(int) == difference_estimate(found.apart)
    assert mean_score(own, int) == mean_estimate(np.array([own[n] for n in sorted(own)]))


def test_images_of_one_prompt_are_one_sample_in_any_order() -> None:
    values = np.random.default_rng(0).normal(size=8)
    own = {number: float(values[number % 8]) for number in reversed(range(24))}
    found = paired(own, dict.fromkeys(own, 0.0)).estimate(lambda number: number % 8)
    assert found.low == pytest.approx(difference_estimate(values).low)
    alone = {number: float(values[number]) for number in range(8)}
    wanted = mean_score(alone, int)
    assert mean_score(own, lambda number: number % 8).low == pytest.approx(wanted.low)


def test_a_category_of_repeated_prompts_holds_the_stated_level() -> None:
    """Of 1,000 comparisons of equal mixes on every third of 24 prompts, 96 images in all."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(1000):
        values = np.tile(rng.normal(size=24), 4) + 0.5 * rng.normal(size=96)
        own = {number: float(values[number]) for number in range(0, 96, 3)}
        found = paired(own, dict.fromkeys(own, 0.0)).estimate(lambda number: number % 24)
        missed += not found.low <= 0 <= found.high
    assert 0.03 < missed / 1000 < 0.08
