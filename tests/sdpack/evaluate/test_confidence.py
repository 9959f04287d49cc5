from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t
from sdpack.evaluate.confidence import (
    Looks,
    half_width,
    interval,
    planned_looks,
    repeated_over_prompts,
)


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
        for n in looks.counts:
            seen = values[:, :n]
            bad |= np.abs(seen.mean(1)) > seen.std(1, ddof=1) * half_width(n, alpha, looks)
        missed = np.append(missed, bad)
    assert 0.75 * alpha < missed.mean() < 1.15 * alpha


def test_a_single_look_has_the_interval_of_student() -> None:
    for n in (8, 30, 200):
        wanted = t.ppf(0.975, n - 1) / n**0.5
        assert half_width(n, 0.05, Looks((n,))) == pytest.approx(wanted, rel=1e-3)


def test_one_early_look_costs_little_and_many_less_than_a_confidence_sequence() -> None:
    looks = planned_looks(16, 480)
    assert norm.ppf(0.975) < half_width(480, 0.05, looks) * 480**0.5 < 2.3
    assert half_width(480, 0.05, looks) < 0.7 * half_width(480, 0.05)


@given(st.integers(1, 64), st.integers(1, 2000))
def test_planned_looks_double_up_to_the_most(first: int, most: int) -> None:
    looks = planned_looks(first, most)
    assert looks.counts[-1] == most
    assert looks.counts[0] == min(first, most)
    assert all(after == min(most, 2 * before) for before, after in pairwise(looks.counts))


@given(st.integers(2, 400), st.sampled_from([0.05, 0.01, 0.002]))
def test_narrower_intervals_need_more_prompts_or_less_confidence(most: int, alpha: float) -> None:
    looks = planned_looks(16, most)
    widths = [half_width(n, alpha, looks) for n in looks.counts]
    assert widths == sorted(widths, reverse=True)
    assert half_width(most, alpha / 2, looks) > half_width(most, alpha, looks)


@pytest.mark.parametrize(("most", "mixes"), [(513, 24), (1025, 24), (257, 201)])
def test_a_last_look_at_few_more_prompts_hardly_changes_the_others(most: int, mixes: int) -> None:
    """It is nearly the same look as the one before."""
    alpha = 0.05 / (mixes - 1)
    with_it, without = planned_looks(16, most), planned_looks(16, most - 1)
    assert len(with_it.counts) == len(without.counts) + 1
    ratio = half_width(16, alpha, with_it) / half_width(16, alpha, without)
    assert ratio == pytest.approx(1, abs=0.02)


def test_few_images_and_many_mixes_have_a_wide_interval() -> None:
    assert half_width(2, 0.05 / 2000, Looks((2,))) > 10_000


def test_images_of_the_same_prompt_count_as_one_sample_of_the_prompts() -> None:
    """If other noise changes nothing, more images make no interval narrower."""
    values = np.random.default_rng(5).normal(size=40)
    once = interval(values, 0.05, Looks((40, 80), 40))
    twice = interval(np.tile(values, 2), 0.05, Looks((80,), 40))
    alone = interval(values, 0.05, Looks((40,)))
    assert twice == pytest.approx(alone, rel=1e-6)
    assert once[2] - once[1] > alone[2] - alone[1]


def test_images_from_other_noise_help_where_noise_is_what_varies() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(size=160)
    once, often = interval(noise[:40], 0.05, Looks((40,))), interval(noise, 0.05, Looks((160,), 40))
    assert 0.35 < (often[2] - often[1]) / (once[2] - once[1]) < 0.7


def test_repeated_prompts_hold_the_stated_level() -> None:
    """Of 2,000 races between equal mixes over prompts that vary as much as their noise does."""
    rng, looks, missed = np.random.default_rng(7), planned_looks(16, 256, 64), 0
    for _ in range(2000):
        values = np.tile(rng.normal(size=64), 4) + rng.normal(size=256)
        found = [interval(values[:n], 0.05, looks) for n in looks.counts]
        missed += any(low > 0 or high < 0 for _, low, high in found)
    assert 0.02 < missed / 2000 < 0.06


@given(st.integers(1, 30), st.integers(1, 90), st.integers(0, 99))
def test_values_repeated_over_prompts_have_the_mean_of_the_scores(
    prompts: int, images: int, seed: int
) -> None:
    scores = np.random.default_rng(seed).normal(size=(3, images))
    found = repeated_over_prompts(scores, prompts)
    assert found.shape == (3, min(prompts, images))
    assert found.mean(axis=1) == pytest.approx(scores.mean(axis=1))
    if images % prompts == 0:
        assert found == pytest.approx(scores.reshape(3, -1, prompts).mean(axis=1))
