from __future__ import annotations

import pytest
from pydantic import ValidationError
from sdpack.documents.evidence import (
    AppearanceFigures,
    BeatenParts,
    DisputedMix,
    Estimated,
    Evidence,
    LatencyLimit,
    OtherJudgement,
    PreselectionFigures,
    TimeLimit,
    compared,
    judge_words,
    weight_words,
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


OWN = Estimated(value=0.4, low=0.38, high=0.42, pictures=64)
AGREES = OtherJudgement(judge="second", licence="MIT", quality=OWN, mixes=9, agreement=0.93)


def test_another_judge_that_agrees_is_told_with_its_correlation() -> None:
    (said,) = judge_words([AGREES], {})
    assert "second, scores the winner 0.400 [0.380, 0.420] over 64 images" in said
    assert "correlation of 0.93. It finds none of 9 other mixes better" in said
    assert "licence" not in said


def test_disputed_mixes_licences_and_judges_that_failed_are_told() -> None:
    mixes = tuple(
        DisputedMix(mix=name, difference=apart, low=apart - 0.01, high=apart + 0.01)
        for name, apart in (("a", 0.02), ("b", 0.05))
    )
    other = {"licence": "CC-BY-NC-4.0", "agreement": None, "disputed": mixes}
    said, left_out = judge_words([AGREES.model_copy(update=other)], {"text": "no such file"})
    assert "correlation" not in said
    assert "CC-BY-NC-4.0, forbids commercial use" in said
    assert "finds 2 of 9 other mixes better: most of all b, by 0.050 [0.040, 0.060]" in said
    assert left_out == "The judge text was left out: no such file."


def test_weights_of_categories_are_told_if_there_are_any() -> None:
    assert weight_words({}) == []
    (said,) = weight_words({"count": 0.0, "style": 2.5})
    assert "count 0, style 2.5; others 1" in said


def test_the_look_of_the_winner_is_told_next_to_its_limits() -> None:
    limits = {"least_similarity": 0.3, "most_colour_offset": 8.0}
    found = AppearanceFigures(
        similarity=0.97,
        colour_offset=1.25,
        sharpness=1.1,
        pictures=16,
        least_sharpness=0.7,
        most_sharpness=1.4,
        **limits,
    )
    assert "0.97 (at least 0.3 is required)" in found.words()
    assert "1.2 levels of 255 (at most 8), and they are 1.10 times as sharp" in found.words()
