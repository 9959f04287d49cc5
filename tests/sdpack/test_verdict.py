from __future__ import annotations

from typing import Any

from sdpack.bundle import Estimated, Evidence, Screening, StandingFigures
from sdpack.placement import Role
from sdpack.verdict import _comparison, _field, _row, _shares


def standing(
    mix: str, mean: float, difference: float, low: float, high: float, **more: Any
) -> StandingFigures:
    values = {
        "mix": mix,
        "placement": "resident",
        "peak_bytes": 20 * 2**20,
        "size_bytes": 12 * 2**20,
        "weights": {"text_encoder": 2**20, "denoiser": 8 * 2**20, "decoder": 3 * 2**20},
        "fate": "worse",
        "lost_to": "a",
        "quality": Estimated(value=mean, low=mean - 0.1, high=mean + 0.1, pictures=64),
        "difference": difference,
        "low": low,
        "high": high,
        "latency_s": None,
    }
    return StandingFigures.model_validate({**values, **more})


WINNER = standing("a", 0.5, 0.0, 0.0, 0.0, fate="won", latency_s=0.1234)
WORSE = standing("b", 0.4, -0.1, -0.15, -0.05)
BETTER = standing("c", 0.504, 0.004, -0.01, 0.018, fate="tied", size_bytes=15 * 2**20)


def test_a_row_tells_bytes_by_role_quality_and_latency() -> None:
    roles = list(WINNER.weights)
    row = _row(WINNER.model_copy(update={"mix": "a/w4 + b/fp16 + c/w8"}), roles)
    assert row[:4] == ("a/w4   1.0", "b/fp16   8.0", "c/w8   3.0", "20.0")
    assert "0.500 [0.400, 0.600]" in row
    assert "123 ms" in row
    assert "-0.100 ±0.050" in _row(WORSE.model_copy(update={"mix": "a/w4 + b/w4 + c/w8"}), roles)


def test_a_mix_that_does_without_an_encoder_leaves_its_column_empty() -> None:
    roles = [Role.TEXT_ENCODER, Role.TEXT_ENCODER_2, Role.DENOISER, Role.DECODER]
    row = _row(WINNER.model_copy(update={"mix": "a/w4 + b/fp16 + c/w8"}), roles)
    assert row[:4] == ("a/w4   1.0", "-", "b/fp16   8.0", "c/w8   3.0")


def test_the_shares_of_the_roles_are_told() -> None:
    said = "Its weights are shared out so: text encoder 8%, denoiser 67%, decoder 25%."
    assert _shares(WINNER) == said


def test_a_tie_says_what_was_spared() -> None:
    (line,) = _comparison(WINNER, [BETTER, WORSE])
    assert "c drew better by +0.004 [-0.010, +0.018]" in line
    assert "3.0 MiB smaller" in line


def test_a_clear_win_names_the_next_best_and_counts_the_rest() -> None:
    lines = _comparison(WINNER, [WORSE])
    assert lines == [
        "The next best, b, drew -0.100 [-0.150, -0.050].",
        "1 of 1 others are worse beyond chance.",
    ]
    assert _comparison(WINNER, []) == []


def test_the_field_tells_of_a_screening() -> None:
    estimate = WINNER.quality
    evidence = Evidence(
        metric="judge similarity",
        measured_on="x",
        quality=estimate,
        kid=None,
        mixes=1152,
        pictures=4000,
        standings=(WINNER, WORSE),
        screening=Screening(error=0.004, checked=12, foretold={"d": 0.1, "e": 0.2}),
    )
    assert _field(evidence).startswith("1,152 mixes fit; 2 of them raced, 2 were left out")
    alone = evidence.model_copy(update={"screening": None})
    assert _field(alone) == "2 mixes fit and raced; 4,000 pictures in all."
