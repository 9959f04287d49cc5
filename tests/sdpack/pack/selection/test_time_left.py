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
from sdpack.pack.selection.time_left import FINISH_S, TimeLeft, latents_of

PRECISIONS = (Precision.FP16, Precision.INT8, Precision.W8, Precision.W4)
RULES = Rules(first=16, fewest=32, most=64)


def mixes(denoisers: int, decoders: int) -> list[Mix]:
    pairs = product(PRECISIONS[:denoisers], PRECISIONS[:decoders])
    return [
        Mix.of(Variant(Role.DENOISER, "d", one), Variant(Role.DECODER, "v", other))
        for one, other in pairs
    ]


def test_mixes_that_differ_in_the_decoder_share_latents() -> None:
    assert latents_of(mixes(3, 4)) == 3
    assert latents_of([*mixes(2, 1), *(mix.in_steps(4) for mix in mixes(2, 1))]) == 4


def test_nothing_is_estimated_before_anything_was_drawn() -> None:
    assert TimeLeft(RULES, 8).after_round(mixes(2, 2), 16) is None


def test_a_quarter_leaves_a_race_in_each_round_from_the_fewest_prompts_on() -> None:
    left = TimeLeft(RULES, 8)
    left.measure(seconds=32.0, mixes=mixes(4, 2), prompts=16, share=1.0)  # half a second each
    # The 4 latents of 8 mixes are drawn on 16 more prompts, then three quarters of them on 32.
    assert left.after_round(mixes(4, 2), 16) == FINISH_S + 0.5 * (4 * 16 + 3 * 32)
    assert left.after_round(mixes(4, 2), 32) == FINISH_S + 0.5 * (3 * 32)
    assert left.after_round(mixes(4, 2), 64) == FINISH_S
    assert left.after_round(mixes(1, 1), 64) is None  # one that had left the race is back


def test_a_screening_is_followed_by_checks_its_other_rounds_and_a_race() -> None:
    left = TimeLeft(RULES, 10)
    field = mixes(4, 1)
    left.measure(seconds=64.0, mixes=field, prompts=16, share=1.0)  # a second each
    race = 7 * 16 + 7 * 16 + 0.75 * 7 * 32  # of 10 mixes, 7 have latents of their own
    first = left.after_screening(field, 16, 32)
    assert first == pytest.approx(FINISH_S + 0.7 * 5 * 16 + 4 * 16 + race)  # 5 mixes are checked
    assert left.after_screening(field[:2], 16, 32) == pytest.approx(FINISH_S + 4 * 16 + race)
    assert left.after_screening(field, 32, 32) == pytest.approx(FINISH_S + race)


@given(st.floats(0.1, 100), st.sampled_from([0.25, 0.5, 1.0]))
def test_only_new_images_count_for_the_speed(seconds: float, share: float) -> None:
    left = TimeLeft(RULES, 8)
    left.measure(seconds, mixes(4, 1), 16, share)
    estimate = left.after_round(mixes(4, 1), 32)
    assert estimate == pytest.approx(FINISH_S + seconds / (share * 4 * 16) * 3 * 32)
