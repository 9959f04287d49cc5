"""Estimates of the rest of a selection, for selections whose speed is known."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.evaluate.rules import Rules
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.time_left import FINISH_S, STAYING, TimeLeft, latents_of

PRECISIONS = (Precision.FP16, Precision.INT8, Precision.W8, Precision.W4)
RULES = Rules(first=16, fewest=32, most=64)


def mixes(denoisers: int, decoders: int) -> list[Mix]:
    pairs = product(PRECISIONS[:denoisers], PRECISIONS[:decoders])
    return [
        Mix.of(Variant(Role.DENOISER, "d", one), Variant(Role.DECODER, "v", other))
        for one, other in pairs
    ]


def time_left(few: int, field: list[Mix]) -> TimeLeft:
    """The time left of a selection among these mixes, after none was drawn."""
    return TimeLeft(RULES, few, field)


def test_mixes_that_differ_in_the_decoder_share_latents() -> None:
    assert len(latents_of(mixes(3, 4))) == 3
    assert len(latents_of([*mixes(2, 1), *(mix.in_steps(4) for mix in mixes(2, 1))])) == 4


def test_nothing_is_estimated_before_anything_was_drawn() -> None:
    assert time_left(8, mixes(2, 2)).after_round(mixes(2, 2), 16) is None


def test_a_quarter_leaves_a_race_in_each_round_from_the_fewest_prompts_on() -> None:
    left = time_left(8, mixes(4, 2))
    left.measure(seconds=32.0, mixes=mixes(4, 2), seen=16, share=1.0)  # half a second each
    # The 4 latents of 8 mixes are drawn on 16 more prompts, then three quarters of them on 32.
    assert left.after_round(mixes(4, 2), 16) == FINISH_S + 0.5 * (4 * 16 + 3 * 32)
    assert left.after_round(mixes(4, 2), 32) == FINISH_S + 0.5 * (3 * 32)
    assert left.after_round(mixes(4, 2), 64) == FINISH_S
    assert left.after_round(mixes(1, 1), 64) is None  # one that had left the race is back


def test_latents_that_were_drawn_before_take_no_time() -> None:
    left = time_left(8, mixes(4, 2))
    left.measure(seconds=16.0, mixes=mixes(1, 2), seen=32, share=1.0)  # half a second each
    left.measure(seconds=24.0, mixes=mixes(4, 2), seen=16, share=1.0)
    assert left.after_round(mixes(4, 2), 16) == FINISH_S + 0.5 * (3 * 16 + 3 * 32)


def test_a_screening_is_followed_by_checks_its_other_rounds_and_a_race() -> None:
    left = time_left(10, mixes(4, 4))
    screened = mixes(2, 1)
    left.measure(seconds=32.0, mixes=screened, seen=16, share=1.0)  # a second each
    in_race = 4 * (1 - (1 - 10 / 16) ** 4)  # latents of 10 mixes of 16, 4 of which share each
    race = (16 + 16) * in_race / 2 + 32 * STAYING * in_race
    checks = 4 * (1 - (1 - 5 / 16) ** 4) / 2 * 16 * (1 - in_race / 4)
    first = left.after_screening(screened, 16, 32)
    assert first == pytest.approx(FINISH_S + 2 * 16 + checks + race)
    left.measure(seconds=16.0, mixes=mixes(3, 2), seen=16, share=1.0)
    checked = left.after_screening(mixes(3, 2), 16, 32)
    assert checked == pytest.approx(FINISH_S + 2 * 16 + race - 16 * in_race / 4)
    left.measure(seconds=16.0, mixes=mixes(1, 1), seen=32, share=1.0)
    assert left.after_screening(mixes(1, 1), 32, 32) == pytest.approx(
        FINISH_S + 16 * in_race / 4 + 16 * in_race * 3 / 4 + 32 * STAYING * in_race
    )


@given(st.floats(0.1, 100), st.sampled_from([0.25, 0.5, 1.0]))
def test_only_new_images_count_for_the_speed(seconds: float, share: float) -> None:
    left = time_left(8, mixes(4, 1))
    left.measure(seconds, mixes(4, 1), 16, share)
    left.measure(seconds, mixes(4, 1), 32, 0.0)
    estimate = left.after_round(mixes(4, 1), 32)
    assert estimate == pytest.approx(FINISH_S + seconds / (share * 4 * 16) * 3 * 32)


@given(st.integers(1, 16), st.integers(1, 4))
def test_the_expected_latents_lie_between_one_and_all(few: int, decoders: int) -> None:
    field = mixes(4, decoders)
    expected = time_left(few, field)._expected(few)
    assert min(1, few / len(field)) - 1e-9 <= expected <= 4
    assert time_left(few, field)._expected(len(field)) == 4
