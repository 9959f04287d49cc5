from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.record import BUILD, DISTANCE, BuildRecord
from sdpack.domain.estimate import Estimate, difference_estimate
from sdpack.domain.placement import Role
from sdpack.errors import StoreError
from sdpack.evaluate.confidence import interval
from sdpack.report.points import _front, read_build
from sdpack.store.ledger import Ledger

from benchmarks.example_ledgers import (
    entrant,
    ledger_of_many,
    record,
    write_build,
    write_latency,
    write_scores,
)


@pytest.fixture
def many(tmp_path: Path) -> tuple[Path, BuildRecord, dict[str, np.ndarray]]:
    path = tmp_path / "ledger.sqlite"
    found, scores = ledger_of_many(path)
    return path, found, dict(scores)


def test_a_mix_is_placed_by_its_difference_on_the_prompts_both_drew(
    many: tuple[Path, BuildRecord, dict[str, np.ndarray]],
) -> None:
    path, found, scores = many
    build = read_build(path)
    assert len(build.points) == len(found.entrants) == 8 * 27
    best = scores[found.winner]
    assert build.winner.mix == found.winner
    assert build.winner.own.value == pytest.approx(best.mean())
    assert build.winner.quality.low == build.winner.quality.value == build.winner.quality.high
    for point in build.points[1:20]:
        mine = scores[point.mix]
        away = mine - best[: len(mine)]
        assert point.images == len(mine) == 16
        assert point.quality.value == pytest.approx(best.mean() + away.mean())
        mean, low, high = interval(away, 0.05 / (len(found.entrants) - 1))
        assert point.raced
        assert point.difference == Estimate(mean, low, high)
        assert point.own.value == pytest.approx(mine.mean())


def test_a_row_that_is_deleted_is_missing_from_the_points(
    many: tuple[Path, BuildRecord, dict[str, np.ndarray]],
) -> None:
    path, found, _ = many
    loser = found.entrants[5]
    with sqlite3.connect(path) as database:
        gone = database.execute(
            "DELETE FROM measurement WHERE kind = ? AND inputs LIKE ? AND inputs LIKE ? "
            "AND inputs LIKE ?",
            (found.metric, *(f'%"{part.content}"%' for part in loser.parts.values())),
        )
        assert gone.rowcount == 1
    mixes = {point.mix for point in read_build(path).points}
    assert mixes == {each.mix for each in found.entrants} - {loser.mix}


def test_without_the_winner_s_scores_there_is_no_report(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger, won = Ledger(path), entrant("aaa", ["fp16"] * 3, outcome="won")
    write_build(ledger, record([won], 4))
    ledger.close()
    with pytest.raises(StoreError, match=r"no scores of a/fp16 .* the winner of test; build it"):
        read_build(path)


def test_a_ledger_without_builds_says_so(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.sqlite").close()
    with pytest.raises(StoreError, match=r"holds no finished build; run `sdpack build` first"):
        read_build(tmp_path / "ledger.sqlite")


def test_a_build_is_asked_for_by_name(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger, won = Ledger(path), entrant("aaa", ["fp16"] * 3, outcome="won", prompts=4)
    for name in ("one", "two"):
        found = record([won], 4, name=name)
        write_scores(ledger, found, won, [0.1, 0.2, 0.3, 0.4])
        write_build(ledger, found)
    ledger.close()
    assert read_build(path, "one").record.name == "one"
    assert read_build(path, "two").record.name == "two"
    with pytest.raises(StoreError, match="no build named 'three'; available: one, two"):
        read_build(path, "three")


@pytest.mark.parametrize(
    ("value", "said"),
    [({}, "incomplete: KeyError"), ({"scores": [0.1]}, "incomplete: ValueError")],
)
def test_a_row_that_is_not_whole_is_named(tmp_path: Path, value: object, said: str) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger, won = Ledger(path), entrant("aaa", ["fp16"] * 3, outcome="won", prompts=4)
    found = record([won], 4)
    write_scores(ledger, found, won, [0.1, 0.2, 0.3, 0.4])
    (row,) = ledger.measurements(found.metric)
    assert isinstance(value, dict)
    ledger.record(found.metric, row.inputs, value)
    write_build(ledger, found)
    ledger.close()
    with pytest.raises(StoreError, match=said):
        read_build(path)


def test_a_record_this_version_cannot_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.record(BUILD, {}, {"schema": 4})
    ledger.close()
    with pytest.raises(StoreError, match="record of a build cannot be read: schema"):
        read_build(path)


def test_a_mix_that_drew_a_broken_picture_is_no_point(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=2)
    lost = entrant("aaa", ["w4"] * 3, outcome="broken", prompts=2)
    ledger, found = Ledger(path), record([won, lost], 2)
    write_scores(ledger, found, won, [0.1, 0.2])
    write_scores(ledger, found, lost, [-1.0, -1.0], broken="picture 1 is constant")
    write_build(ledger, found)
    ledger.close()
    build = read_build(path)
    assert [point.mix for point in build.points] == [won.mix]
    assert build.broken(lost) == "picture 1 is constant"


def test_scores_of_other_noise_sizes_judges_and_prompts_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=3)
    ledger, found = Ledger(path), record([won], 3)
    write_scores(ledger, found, won, [0.1, 0.2, 0.3])
    write_scores(ledger, found, won.model_copy(update={"judge": "another"}), [0.9] * 3)
    write_scores(ledger, found.model_copy(update={"drawn_with": "else"}), won, [0.9] * 3)
    other = found.model_copy(update={"prompts": ("another prompt", *found.prompts[1:])})
    write_scores(ledger, other, won, [0.9])
    write_build(ledger, found)
    ledger.close()
    assert dict(read_build(path).scores(won)) == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})


def test_what_later_builds_saw_of_a_mix_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=16, timed=True)
    ledger, found = Ledger(path), record([won], 48)
    write_scores(ledger, found, won, [0.5] * 16)
    write_latency(ledger, found.model_copy(update={"cores": 64}), won, 9.0)
    write_latency(ledger, found, won, 0.25)
    write_build(ledger, found)
    before = read_build(path).winner
    write_scores(ledger, found, won, [0.9] * 32, start=16)
    write_scores(ledger, found, won, [0.9] * 48, start=32, broken="one is constant")
    ledger.close()
    after = read_build(path).winner
    assert (after.images, after.quality, after.latency_s) == (16, before.quality, 0.25)


def test_what_a_precision_costs_is_paired_with_the_widest(
    many: tuple[Path, BuildRecord, dict[str, np.ndarray]],
) -> None:
    path, _, scores = many
    costs = read_build(path).costs
    assert len(costs) == 3 * 2 * 2  # roles, candidates, precisions below the widest
    cost = next(
        c for c in costs if (c.role, c.candidate, c.precision) == (Role.DENOISER, "a", "w4")
    )
    assert cost.widest == "fp16"
    encoder, decoder = cost.within.split(" + ")
    narrow = scores[f"{encoder} + a/w4 + {decoder}"]
    wide = scores[f"{encoder} + a/fp16 + {decoder}"]
    shared = min(len(narrow), len(wide))
    assert cost.pictures == shared
    assert cost.difference == difference_estimate(narrow[:shared] - wide[:shared])


def test_latencies_are_found_by_placement(
    many: tuple[Path, BuildRecord, dict[str, np.ndarray]],
) -> None:
    build = read_build(many[0])
    timed = {point.mix: point.latency_s for point in build.points if point.latency_s is not None}
    assert len(timed) == 10
    assert timed[build.record.winner] == pytest.approx(0.1)
    tiled = replace(build.record.entrants[0].placement, tile=32)
    moved = build.record.entrants[0].model_copy(update={"placement": tiled})
    assert build.latency_s(moved) is None


points = st.lists(
    st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), min_size=1, max_size=20
)


@given(points)
def test_the_front_holds_what_no_other_beats(found: list[tuple[float, float]]) -> None:
    front = _front(found)
    for number, (burden, worth) in enumerate(found):
        beaten = any(b <= burden and w >= worth and (b, w) != (burden, worth) for b, w in found)
        if number in front:
            assert not beaten
        elif not beaten:
            assert found.index((burden, worth)) in front  # its double is


def test_of_two_names_for_the_same_graphs_all_prompts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=32)
    double = won.model_copy(update={"mix": "z/mixed@16.00", "outcome": "same", "prompts": 16})
    ledger, found = Ledger(path), record([won, double], 32)
    write_scores(ledger, found, won, [0.5] * 32)
    write_build(ledger, found)
    ledger.close()
    assert read_build(path).winner.images == 32


def test_latencies_and_distances_of_others_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=32, distance_prompts=16)
    ledger, found = Ledger(path), record([won], 32, real="real")
    write_scores(ledger, found, won, [0.5] * 32)
    write_latency(ledger, found, won, 0.25)  # by a build that timed it; this one did not
    for seen, real, value in ((16, "real", 1.0), (32, "real", 2.0), (16, "other", 3.0)):
        inputs = {
            **won.contents,
            "prompts": list(found.prompts[:seen]),
            "seeds": list(range(seen)),
            "size": found.size,
            "judge": won.judge,
            "measured_on": found.drawn_with,
            "real": real,
        }
        ledger.record(DISTANCE, inputs, {"value": value, "low": value, "high": value})
    write_build(ledger, found)
    ledger.close()
    build = read_build(path)
    assert build.winner.latency_s is None
    distance = build.distance(won)
    assert distance is not None
    assert (distance[0], distance[1].value) == (16, 1.0)


def test_a_record_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=2)
    ledger, found = Ledger(path), record([won], 2)
    write_scores(ledger, found, won, [0.1, 0.2])
    ledger.record(BUILD, {"of": "another sdpack"}, {"schema": 1, "strange": True})
    write_build(ledger, found)
    ledger.close()
    assert read_build(path).record.name == "test"
