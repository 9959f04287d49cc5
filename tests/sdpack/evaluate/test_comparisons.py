from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.evaluate.comparisons import Comparisons
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import BROKEN_SCORE, Preference, Rules

MIXES = 5


@st.composite
def compared(draw: st.DrawFn) -> Comparisons:
    """Five mixes, some nearly or exactly alike, scored on so many prompts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    prompts = draw(st.sampled_from([1, 2, 40, 200]))
    apart = draw(st.sampled_from([0.0, 0.004, 0.05]))
    shared = rng.normal(0.3, 0.1, prompts)
    scores = shared + rng.normal(0, 0.01, (MIXES, prompts)) + rng.normal(0, apart, (MIXES, 1))
    scores[1] = scores[0]
    rules = Rules(prefer=draw(st.sampled_from(list(Preference))))
    found = Comparisons(MIXES, rules, slack=draw(st.sampled_from([0.0, 0.002])))
    found.add(range(MIXES), scores)
    return found


@given(compared())
def test_pairs_compared_at_once_agree_with_pairs_compared_one_by_one(found: Comparisons) -> None:
    every = range(MIXES)
    equal, above = found.equal_pairs(every), found.above_pairs(every)
    for one in every:
        for other in every:
            if one != other:
                assert equal[one, other] == found.shown_equal(one, other)
                assert above[one, other] == found.is_above(one, other)


@given(compared())
def test_the_difference_of_two_is_the_negative_of_the_other_way_round(found: Comparisons) -> None:
    mean, low, high = found.difference(0, 2)
    assert found.difference(2, 0) == pytest.approx((-mean, -high, -low))
    assert mean == pytest.approx(found.mean(0) - found.mean(2))


@given(compared())
def test_two_mixes_never_exclude_each_other(found: Comparisons) -> None:
    assert not (found.stands_against(0, 2) and found.stands_against(2, 0))
    assert not found.is_above(0, 1)  # they have the same scores


def test_two_are_compared_on_the_prompts_that_both_were_scored_on() -> None:
    found = Comparisons(2, Rules())
    scores = np.random.default_rng(0).random((2, 60))
    found.add([0, 1], scores[:, :40])
    found.add([0], scores[:1, 40:])
    # Of two mixes one pair is compared, at all of the confidence.
    wanted = interval(scores[0, :40] - scores[1, :40], 0.05, found.rules.looks)
    assert found.difference(0, 1) == pytest.approx(wanted)
    assert found.mean(0) == pytest.approx(scores[0].mean())
    assert list(found.seen) == [60, 40]


def test_mixes_with_a_broken_picture_are_returned() -> None:
    found = Comparisons(3, Rules())
    scores = np.full((2, 4), 0.5)
    scores[1, 3] = BROKEN_SCORE
    assert found.add([2, 0], scores) == [0]
    assert found.add([2, 0], np.full((2, 4), 0.5)) == []


def test_too_few_prompts_never_show_equality() -> None:
    found = Comparisons(2, Rules(fewest=32))
    found.add([0, 1], np.full((2, 31), 0.5))
    assert not found.shown_equal(0, 1)
    found.add([0, 1], np.full((2, 1), 0.5))
    assert found.shown_equal(0, 1)


def test_pairs_and_differences_agree_where_prompts_come_again() -> None:
    rules = Rules(most=90, noises=3, indifference=0.2).with_prompts(32)
    found, rng = Comparisons(3, rules), np.random.default_rng(4)
    prompts = np.tile(rng.normal(0, 0.3, (3, 32)), 3)[:, :90]
    found.add([0, 1, 2], 0.5 + prompts + rng.normal(0, 0.1, (3, 90)))
    equal, above = found.equal_pairs([0, 1, 2]), found.above_pairs([0, 1, 2])
    for one in range(3):
        for other in range(3):
            if one != other:
                assert equal[one, other] == found.shown_equal(one, other)
                assert above[one, other] == found.is_above(one, other)
