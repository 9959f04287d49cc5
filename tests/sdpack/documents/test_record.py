from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.record import (
    DISTANCE,
    LATENCY,
    BuildRecord,
    scored_key,
)
from sdpack.domain.workload import WORKLOAD
from sdpack.errors import StoreError
from sdpack.store.ledger import Measurement

from benchmarks.example_ledgers import METRIC, entrant, record

COUNT = 40  # prompts: two whole rows of scores, and one of eight
WON = entrant("abc", ["fp16"] * 3, outcome="won", prompts=COUNT, timed=True, distance_prompts=8)
LOST = entrant("abd", ["fp16"] * 3, outcome="worse", lost_to=WON.mix, prompts=WORKLOAD.chunk)
RECORD = record([WON, LOST], COUNT, real="pictures")


def row(numbers: list[int], kind: str = METRIC, **changes: Any) -> Measurement:
    inputs = {
        **WON.contents,
        "judge": WON.judge,
        "size": [64, 64],
        "measured_on": "a test",
        "seeds": numbers,
        "prompts": [f"prompt {number}" for number in numbers],
        **changes,
    }
    return Measurement(kind, inputs, {}, "2020-01-01T00:00:00+00:00")


@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=20, unique=True))
def test_only_whole_chunks_of_scores_are_taken(numbers: list[int]) -> None:
    chunks = [
        list(range(start, min(start + WORKLOAD.chunk, COUNT)))
        for start in range(0, COUNT, WORKLOAD.chunk)
    ]
    assert RECORD.takes(row(numbers)) == (numbers in chunks)
    assert all(RECORD.takes(row(chunk)) for chunk in chunks)


def test_scores_of_large_images_have_a_row_each_or_as_in_older_bundles_of_each_chunk() -> None:
    values = {**RECORD.model_dump(by_alias=True), "height": 512, "width": 512}
    large = BuildRecord.model_validate(values)
    assert large.takes(row([3], size=[512, 512]))
    assert large.takes(row(list(range(WORKLOAD.chunk)), size=[512, 512]))
    assert not large.takes(row([3, 4], size=[512, 512]))
    assert not RECORD.takes(row([3]))


@pytest.mark.parametrize(
    "changes",
    [
        {"judge": "another"},
        {"size": [64, 96]},
        {"measured_on": "another test"},
        {"recipe": "another"},
        {"denoiser": "another graph"},
        {"prompts": [f"other {number}" for number in range(WORKLOAD.chunk)]},
    ],
)
def test_scores_of_anything_else_are_not_taken(changes: dict[str, Any]) -> None:
    numbers = list(range(WORKLOAD.chunk))
    assert RECORD.takes(row(numbers))
    assert not RECORD.takes(row(numbers, **changes))


def test_scores_with_other_captions_are_not_taken() -> None:
    numbers = list(range(WORKLOAD.chunk))
    captions = tuple(f"caption {number}" for number in range(len(RECORD.prompts)))
    other = RECORD.model_copy(update={"captions": captions})
    own = list(captions[: len(numbers)])
    assert other.takes(row(numbers, captions=own))
    assert not other.takes(row(numbers, captions=[*own[:-1], "another"]))
    assert not other.takes(row(numbers))
    assert not RECORD.takes(row(numbers, captions=own))
    assert (other.caption(2), RECORD.caption(2)) == ("caption 2", RECORD.prompts[2])


def test_scores_beyond_the_prompts_of_the_race_are_not_taken() -> None:
    second = list(range(WORKLOAD.chunk, 2 * WORKLOAD.chunk))
    assert RECORD.takes(row(second))
    assert not RECORD.takes(row(second, **LOST.contents))


def test_latencies_are_those_of_this_machine_and_of_mixes_that_were_timed() -> None:
    here = {"machine": "test", "cores": 2}
    assert RECORD.takes(row([3], LATENCY, **here))
    assert not RECORD.takes(row([3], LATENCY, **{**here, "cores": 4}))
    assert not RECORD.takes(row([3], LATENCY, **here, **LOST.contents))


def test_a_distance_is_over_the_first_prompts_and_to_the_same_pictures() -> None:
    assert RECORD.takes(row(list(range(8)), DISTANCE, real="pictures"))
    assert not RECORD.takes(row(list(range(8)), DISTANCE, real="others"))
    assert not RECORD.takes(row(list(range(9)), DISTANCE, real="pictures"))
    assert not RECORD.takes(row(list(range(1, 9)), DISTANCE, real="pictures"))


def test_an_entrant_is_found_by_the_name_of_its_mix() -> None:
    assert RECORD.entrant(LOST.mix) is RECORD.entrants[1]
    with pytest.raises(StoreError, match="test names x, which it did not draw"):
        RECORD.entrant("x")


def test_the_peak_is_the_sum_of_weights_activations_and_fixed_bytes() -> None:
    peak = WON.peak
    total = sum(peak.weights.values()) + peak.activation_bytes + peak.fixed_bytes
    assert peak.bytes == total


def test_the_key_of_scores_ignores_prompts_and_noise() -> None:
    keys = {scored_key(row(numbers).inputs) for numbers in ([0], [1, 2])}
    assert keys == {RECORD.scored(WON)}
    assert RECORD.scored(WON) != RECORD.scored(LOST)


def test_a_record_survives_json() -> None:
    assert BuildRecord.model_validate_json(RECORD.model_dump_json(by_alias=True)) == RECORD
