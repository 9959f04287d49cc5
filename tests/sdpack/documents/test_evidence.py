from __future__ import annotations

import pytest
from pydantic import ValidationError
from sdpack.documents.evidence import (
    BeatenParts,
    Estimated,
    Evidence,
    LatencyLimit,
    PreselectionFigures,
    TimeLimit,
    compared,
)

from tests.sdpack.documents.test_bundle import manifest

EVIDENCE = manifest().evidence
LIMIT = LatencyLimit(max_seconds=2, is_measured=False, where="a device", left_out=1234)


def test_the_winner_is_the_first_standing() -> None:
    first = EVIDENCE.standings[0]
    second = first.model_copy(update={"mix": "another", "fate": "worse"})
    both = EVIDENCE.model_copy(update={"standings": (first, second)})
    assert both.winner is first


def test_evidence_of_schema_1_has_no_rule_and_survives_json() -> None:
    assert EVIDENCE.rule is None
    assert Evidence.model_validate_json(EVIDENCE.model_dump_json()) == EVIDENCE


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"standings": []}, "standings"),
        ({"quality": {**EVIDENCE.quality.model_dump(), "pictures": 0}}, "quality.pictures"),
        ({"tiled_difference": -1}, "tiled_difference"),
        ({"winner": "s"}, "winner"),
    ],
)
def test_invalid_evidence_is_refused_and_its_key_named(
    changes: dict[str, object], where: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Evidence.model_validate({**EVIDENCE.model_dump(), **changes})
    assert [".".join(map(str, each["loc"])) for each in caught.value.errors()] == [where]


@pytest.mark.parametrize(
    ("latency", "time", "words"),
    [
        (None, None, "fit"),
        (LIMIT, None, "fit and are fast enough"),
        (None, TimeLimit(seconds=60, is_complete=True), "fit"),
        (LIMIT, TimeLimit(seconds=60, is_complete=False, left_out=("a",)), "were tried"),
    ],
)
def test_limits_narrow_what_was_compared(
    latency: LatencyLimit | None, time: TimeLimit | None, words: str
) -> None:
    assert compared(latency, time) == words


def test_the_time_of_an_image_is_told_with_its_source() -> None:
    assert LIMIT.words(0.5) == (
        "An image takes 0.5 s, the sum of its parts (predicted for a device); the limit is 2 s, "
        "and 1,234 mixes that fit the memory take longer."
    )
    measured = LIMIT.model_copy(update={"is_measured": True, "where": "here", "whole_s": 0.75})
    assert "0.5 s, the sum of its parts, and 0.75 s as a whole (measured on here)" in (
        measured.words(0.5)
    )


def beaten(
    parts: str, difference: float, is_broken: bool = False, high: float | None = None
) -> BeatenParts:
    own = Estimated(value=0.3 + difference, low=0.1, high=0.5, pictures=16)
    low = None if high is None else 2 * difference - high
    return BeatenParts(
        parts=parts, is_broken=is_broken, quality=own, difference=difference, low=low, high=high
    )


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ([], ""),
        (
            [beaten("m + l", -0.05, high=0.01), beaten("s + l", -0.1, high=-0.02)],
            "2 of 5 sets of parts were left out: the images of 2 in fp32 are worse than the "
            "winner's (beyond chance for 1 of them, otherwise in the mean over all prompts), the "
            "nearest, m + l, by 0.050 over 16 images.",
        ),
        (
            [beaten("m + l", -0.05), beaten("s + l", -1.3, is_broken=True)],
            "2 of 5 sets of parts were left out: the images of 1 in fp32 are worse than the "
            "winner's (beyond chance for 0 of them, otherwise in the mean over all prompts), the "
            "nearest, m + l, by 0.050 over 16 images and 1 draw broken images in fp32.",
        ),
        (
            [beaten("s + l", -1.3, is_broken=True)],
            "1 of 5 sets of parts were left out: 1 draw broken images in fp32.",
        ),
    ],
)
def test_sets_that_were_left_out_are_counted_with_the_reason(
    left_out: list[BeatenParts], words: str
) -> None:
    preselection = PreselectionFigures(sets=5, beaten=tuple(left_out))
    assert preselection.words() == words
    kept = 5 - len(left_out)
    assert preselection.scope == (f", in {kept} of 5 sets of parts" if left_out else "")
