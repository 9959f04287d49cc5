from __future__ import annotations

from typing import Any

import pytest
from sdpack.cli.explain import _comparison, _field, _row, _rule, _shares
from sdpack.documents.evidence import (
    Estimated,
    Evidence,
    Screening,
    SelectionRule,
    StandingFigures,
    TimeLimit,
)
from sdpack.domain.placement import Role


def standing(
    mix: str, mean: float, difference: float, low: float, high: float, **more: Any
) -> StandingFigures:
    values = {
        "mix": mix,
        "placement": "resident",
        "peak_bytes": 20 * 2**20,
        "size_bytes": 12 * 2**20,
        "weights": {"text_encoder": 2**20, "denoiser": 8 * 2**20, "decoder": 3 * 2**20},
        "outcome": "worse",
        "lost_to": "a",
        "quality": Estimated(value=mean, low=mean - 0.1, high=mean + 0.1, pictures=64),
        "difference": difference,
        "low": low,
        "high": high,
        "latency_s": None,
    }
    return StandingFigures.model_validate({**values, **more})


WINNER = standing("a", 0.5, 0.0, 0.0, 0.0, outcome="won", latency_s=0.1234)
WORSE = standing("b", 0.4, -0.1, -0.15, -0.05)
BETTER = standing("c", 0.504, 0.004, -0.01, 0.018, outcome="open", size_bytes=15 * 2**20)


def evidence(**more: Any) -> Evidence:
    values = {
        "metric": "judge similarity",
        "measured_on": "x",
        "quality": WINNER.quality,
        "kid": None,
        "mixes": 1152,
        "pictures": 4000,
        "standings": (WINNER, WORSE),
    }
    return Evidence.model_validate({**values, **more})


def test_a_row_tells_bytes_by_role_quality_and_latency() -> None:
    roles = list(WINNER.weights)
    row = _row(WINNER.model_copy(update={"mix": "a/w4 + b/fp16 + c/w8"}), roles, False, 0.5)
    assert row[:4] == ("a/w4   1.0", "b/fp16   8.0", "c/w8   3.0", "20.0")
    assert "0.500" in row
    assert "123 ms" in row
    worse = WORSE.model_copy(update={"mix": "a/w4 + b/w4 + c/w8"})
    assert "0.400" in _row(worse, roles, False, 0.5)
    assert "-0.100 [-0.150, -0.050]" in _row(worse, roles, False, 0.5)


def test_a_mix_that_does_without_an_encoder_leaves_its_column_empty() -> None:
    roles = [Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.DENOISER, Role.DECODER]
    row = _row(WINNER.model_copy(update={"mix": "a/w4 + b/fp16 + c/w8"}), roles, False, 0.5)
    assert row[:4] == ("a/w4   1.0", "-", "b/fp16   8.0", "c/w8   3.0")


def test_mixes_that_differ_in_steps_have_a_column_of_steps() -> None:
    roles = list(WINNER.weights)
    name = "a/w4 + b/fp16 + c/w8 in 8 steps"
    mix = WINNER.model_copy(update={"mix": name, "steps": 8})
    assert _row(mix, roles, True, 0.5)[:4] == ("a/w4   1.0", "b/fp16   8.0", "c/w8   3.0", "8")
    other = WINNER.model_copy(update={"mix": "a/w4 + b/fp16 + c/w8"})
    assert _row(other, roles, True, 0.5)[3] == "-"


def test_the_shares_of_the_roles_are_told() -> None:
    said = "Its weights are divided as follows: text encoder 8%, denoiser 67%, decoder 25%."
    assert _shares(WINNER) == said


def test_the_nearest_rival_is_told_with_the_interval_that_decided_the_race() -> None:
    assert _comparison(WINNER, [BETTER, WORSE]) == [
        "The nearest rival, c, differs by +0.004 [-0.010, +0.018] over 64 images, and is 3.0 MiB "
        "larger. A measured difference of 0.014 would have decided it.",
        "1 of 2 others were shown to be worse.",
    ]


@pytest.mark.parametrize(
    ("prefer", "basis", "words"),
    [
        ("quality", "best", "No other mix has a better mean"),
        (
            "quality",
            "shown equal",
            "It was shown equal to every mix with a better mean (the whole interval",
        ),
        (
            "speed",
            "shown equal",
            "It was shown equal to every mix with a better mean (the whole interval",
        ),
        ("memory", "open", "--prefer memory chose it although a comparison with a better mean is"),
    ],
)
def test_the_rule_says_what_the_winner_s_place_rests_on(
    prefer: str, basis: str, words: str
) -> None:
    rule = SelectionRule(prefer=prefer, basis=basis, confidence=0.95, indifference=0.01, prompts=64)
    (line,) = _rule(evidence(rule=rule))
    assert line.startswith(words)
    assert _rule(evidence(rule=None)) == []


def test_a_clear_win_names_the_next_best_and_counts_the_rest() -> None:
    lines = _comparison(WINNER, [WORSE])
    assert lines == [
        "The nearest rival, b, differs by -0.100 [-0.150, -0.050] over 64 images.",
        "1 of 1 others were shown to be worse.",
    ]
    assert _comparison(WINNER, []) == []


def test_the_field_tells_of_a_screening() -> None:
    screening = Screening(error=0.004, checked=12, predicted={"d": 0.1, "e": 0.2})
    screened = evidence(screening=screening)
    assert _field(screened).startswith(
        "1,152 mixes fit; 2 of them raced, and the screening excluded 2"
    )
    assert _field(evidence()) == "2 mixes raced; 4,000 images in all."


@pytest.mark.parametrize(
    ("is_complete", "words"),
    [(True, "--prefer memory chose it"), (False, "was open when the time was up")],
)
def test_an_open_comparison_is_explained_by_the_preference_or_by_the_time(
    is_complete: bool, words: str
) -> None:
    rule = SelectionRule(
        prefer="memory", basis="open", confidence=0.95, indifference=0.01, prompts=64
    )
    limit = TimeLimit(seconds=60, is_complete=is_complete)
    (line,) = _rule(evidence(rule=rule, time_limit=limit))
    assert words in line
