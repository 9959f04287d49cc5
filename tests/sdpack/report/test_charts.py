from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdpack.documents.evidence import LatencyLimit
from sdpack.documents.record import DISTANCE, LATENCY
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import Outcome
from sdpack.report import charts
from sdpack.report.build_page import summary
from sdpack.report.charts import build_figures
from sdpack.report.points import Build, read_build
from sdpack.store.ledger import read_rows


def drawn(build: Build, name: str) -> list[dict[str, Any]]:
    figure = next(figure for figure in build_figures(build, {}) if figure.name == name)
    spec = figure.spec
    rows = spec["datasets"].get("mixes")
    if rows is None:
        rows = max(spec["datasets"].values(), key=len)
    assert rows == figure.rows
    return list(rows)


def test_what_is_plotted_is_what_the_ledger_holds(many: Path) -> None:
    build = read_build(many)
    by_contents = {tuple(sorted(e.contents.items())): e.mix for e in build.record.entrants}
    scores: dict[str, dict[int, float]] = {}
    for row in read_rows(many, [build.record.metric]):
        mine = {key: row.inputs[key] for key in build.record.entrants[0].contents}
        mix = by_contents[tuple(sorted(mine.items()))]
        seen = zip(row.inputs["seeds"], row.value["scores"], strict=True)
        scores.setdefault(mix, {}).update(seen)
    rows = {row["mix"]: row for row in drawn(build, "quality-memory")}
    assert rows.keys() == scores.keys()
    best = scores[build.record.winner]
    for entrant in build.record.entrants[1:40]:
        own, point = scores[entrant.mix], rows[entrant.mix]
        apart = [own[number] - best[number] for number in own]
        assert point["quality"] == pytest.approx(np.mean(list(best.values())) + np.mean(apart))
        _, low, high = interval(np.array(apart), 0.05 / (len(build.record.entrants) - 1))
        assert point["high"] - point["low"] == pytest.approx(high - low)
        assert point["pictures"] == len(own)
        assert point["peak_mib"] == entrant.peak.bytes / 2**20


def test_a_deleted_row_changes_the_charts(many: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "ledger.sqlite"
    shutil.copyfile(many, fewer)
    with sqlite3.connect(fewer) as database:
        database.execute(
            "DELETE FROM measurement WHERE key = (SELECT key FROM measurement WHERE kind = ? "
            "AND inputs NOT LIKE '%fp16%' LIMIT 1)",
            ("judge similarity",),
        )
    before, after = (len(drawn(read_build(p), "quality-memory")) for p in (many, fewer))
    assert (before, after) == (216, 215)


def test_a_limit_on_the_time_of_an_image_is_a_line_in_the_chart(many: Path) -> None:
    whole = read_build(many)
    assert whole.record.latency_limit is None
    entrants = tuple(
        entrant.model_copy(update={"expected_s": 1.0 + number / 100})
        for number, entrant in enumerate(whole.record.entrants)
    )
    limit = LatencyLimit(max_seconds=4.5, is_measured=False, where="a device", left_out=7)
    record = whole.record.model_copy(update={"entrants": entrants, "latency_limit": limit})
    rows = read_rows(many, (record.metric, LATENCY, DISTANCE))
    build = Build(record, rows, whole.made_at)
    figure = next(each for each in build_figures(build, {}) if each.name == "quality-latency")
    assert "predicted for a device" in figure.caption
    assert "7 other mixes" in figure.caption
    assert len(figure.rows) == len(build.points)
    assert max(row["latency_ms"] for row in figure.rows) < 4500
    assert [{"limit": 4500.0}] in list(figure.spec["datasets"].values())
    assert any("limit is 4.5 s" in line for line in summary(build))


def test_every_outcome_has_a_word_and_a_look() -> None:
    assert set(charts.OUTCOMES) >= {*Outcome, None} - {Outcome.BROKEN}  # those have no scores
    assert set(charts.OUTCOMES.values()) <= set(charts.LOOKS)
