"""The images a selection draws lie within what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import Arm, Rules
from sdpack.pack.forecast.image_count import image_count, one_at_a_time, preselected_count
from sdpack.pack.forecast.intervals import NOTHING, Interval
from sdpack.pack.planning.mix import Mix, Variant

PRECISIONS = (Precision.FP16, Precision.W8, Precision.W4)


def every(encoders: int, denoisers: int) -> list[Mix]:
    names = product(range(encoders), range(denoisers))
    return [
        Mix.of(
            Variant(Role.TEXT_ENCODER, f"e{e}", one),
            Variant(Role.DENOISER, f"d{d}", two),
            Variant(Role.DECODER, "v", three),
        )
        for (e, d), (one, two, three) in product(names, product(PRECISIONS, repeat=3))
    ]


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.1])
def test_a_race_draws_as_many_as_predicted(spread: float) -> None:
    rules, rng = Rules(most=128), np.random.default_rng(0)
    mixes = every(1, 1)[:12]
    worth = rng.normal(0, spread, (len(mixes), 1))
    table = worth + rng.normal(0.3, 0.2, (1, 128)) + rng.normal(0, 0.02, (len(mixes), 128))
    drawn: set[tuple[int, int]] = set()

    def scores(arms: Sequence[int], prompts: Sequence[int]) -> NDArray[np.float64]:
        drawn.update(product(arms, prompts))
        return table[np.ix_(list(arms), list(prompts))]

    Race([Arm(str(mix), (float(n),)) for n, mix in enumerate(mixes)], scores, rules).run()
    count = image_count(mixes, rules, is_large=False, prompts=1000)
    assert count.screened == NOTHING
    assert count.raced.low <= len(drawn) <= count.raced.high == 12 * 128


def test_a_large_field_is_screened_first() -> None:
    mixes = every(2, 2)
    count = image_count(mixes, Rules(most=384), is_large=False, prompts=384)
    # Of each denoiser 6 variants of encoders, 3 of its own and 3 of the decoder; 12 are checked.
    assert len(one_at_a_time(mixes)) == 2 * (6 + 3 + 3)
    assert count.screened.low == (24 + 12) * 16
    assert count.screened.high == (24 + 12) * 96  # a quarter of the prompts
    assert count.raced.high == 24 * 384
    large = image_count(mixes, Rules(most=384), is_large=True, prompts=384)
    assert large.raced.high == 8 * 384


@pytest.mark.parametrize("most", [1, 4, 16, 17, 64])
def test_the_least_is_never_above_the_most(most: int) -> None:
    for mixes in (every(1, 1)[:2], every(2, 2)):
        count = image_count(mixes, Rules(most=most), is_large=False, prompts=384)
        assert count.screened.low <= count.screened.high
        assert count.raced.low <= count.raced.high


def test_no_more_prompts_are_drawn_than_there_are() -> None:
    assert image_count(every(1, 1)[:2], Rules(), is_large=False, prompts=5).raced.high == 2 * 5


def test_sets_of_parts_are_compared_first_and_as_few_as_one_is_left() -> None:
    mixes, rules = every(3, 2), Rules(most=384)
    whole = image_count(mixes, rules, is_large=False, prompts=384)
    count = preselected_count(mixes, rules, is_large=False, prompts=384)
    alone = image_count(mixes[: 3**3], rules, is_large=False, prompts=384)
    assert count.in_fp32 == Interval(6 * 16, 6 * 64)
    assert count.screened == Interval(alone.screened.low, whole.screened.high)
    assert count.raced == Interval(alone.raced.low, whole.raced.high)
    assert count.all == count.in_fp32 + count.screened + count.raced
    large = preselected_count(mixes, rules, is_large=True, prompts=384)
    assert large.in_fp32 == Interval(6 * 16, 6 * 16)


def test_a_single_set_is_not_compared_in_fp32() -> None:
    mixes = every(1, 1)
    count = preselected_count(mixes, Rules(), is_large=False, prompts=384)
    assert count == image_count(mixes, Rules(), is_large=False, prompts=384)
    assert count.in_fp32 == NOTHING
