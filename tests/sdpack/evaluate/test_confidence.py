from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t
from sdpack.evaluate.confidence import half_width, interval, planned_looks


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


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 9])
def test_intervals_at_planned_looks_miss_as_often_as_stated(alpha: float) -> None:
    """Of 40,000 races between equal mixes; the standard error of the share is 2 % of it or 7 %."""
    looks, rng = planned_looks(16, 384), np.random.default_rng(2)
    missed = np.zeros(0, bool)
    for _ in range(20):
        values = rng.normal(size=(2000, 384))
        bad = np.zeros(2000, bool)
        for n in looks:
            seen = values[:, :n]
            bad |= np.abs(seen.mean(1)) > seen.std(1, ddof=1) * half_width(n, alpha, looks)
        missed = np.append(missed, bad)
    assert 0.75 * alpha < missed.mean() < 1.15 * alpha


def test_a_single_look_has_the_interval_of_student() -> None:
    for n in (8, 30, 200):
        wanted = t.ppf(0.975, n - 1) / n**0.5
        assert half_width(n, 0.05, (n,)) == pytest.approx(wanted, rel=1e-3)


def test_one_early_look_costs_little_and_many_less_than_a_confidence_sequence() -> None:
    looks = planned_looks(16, 480)
    assert norm.ppf(0.975) < half_width(480, 0.05, looks) * 480**0.5 < 2.3
    assert half_width(480, 0.05, looks) < 0.7 * half_width(480, 0.05)


@given(st.integers(1, 64), st.integers(1, 2000))
def test_planned_looks_double_up_to_the_most(first: int, most: int) -> None:
    looks = planned_looks(first, most)
    assert looks[-1] == most
    assert looks[0] == min(first, most)
    assert all(after == min(most, 2 * before) for before, after in pairwise(looks))


@given(st.integers(2, 400), st.sampled_from([0.05, 0.01, 0.002]))
def test_narrower_intervals_need_more_prompts_or_less_confidence(most: int, alpha: float) -> None:
    looks = planned_looks(16, most)
    widths = [half_width(n, alpha, looks) for n in looks]
    assert widths == sorted(widths, reverse=True)
    assert half_width(most, alpha / 2, looks) > half_width(most, alpha, looks)


@pytest.mark.parametrize(("most", "mixes"), [(513, 24), (1025, 24), (257, 201)])
def test_a_last_look_at_few_more_prompts_hardly_changes_the_others(most: int, mixes: int) -> None:
    """It is nearly the same look as the one before."""
    alpha = 0.05 / (mixes - 1)
    with_it, without = planned_looks(16, most), planned_looks(16, most - 1)
    assert len(with_it) == len(without) + 1
    ratio = half_width(16, alpha, with_it) / half_width(16, alpha, without)
    assert ratio == pytest.approx(1, abs=0.02)


def test_few_images_and_many_mixes_have_a_wide_interval() -> None:
    assert half_width(2, 0.05 / 2000, (2,)) > 10_000
