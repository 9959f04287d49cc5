from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from sdpack.report.study_finding import finding
from sdpack.report.study_page import study_figures, write_study
from sdpack.report.study_points import read_study

from benchmarks.example_ledgers import MIB


def test_charts_hold_the_points(ledger: Path) -> None:
    study = read_study(ledger)
    shares, lines, scatter = study_figures(study)
    stacked: dict[str, float] = {}
    for row in shares.rows:
        stacked[row["budget"]] = stacked.get(row["budget"], 0) + row["share"]
    assert stacked == {budget: pytest.approx(1) for budget in ("16.0 MiB", "64.0 MiB", "SD 1.x")}
    assert len(lines.rows) == 9
    assert len(scatter.rows) == 4
    for figure in (shares, lines, scatter):
        held = [row for rows in figure.spec["datasets"].values() for row in rows]
        assert all(row in held for row in figure.rows)


def test_everything_is_written(ledger: Path, tmp_path: Path) -> None:
    study = write_study(ledger, tmp_path / "out" / "study.html")
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {
        "study.html",
        "points.csv",
        "points.json",
        "shares.png",
        "quality-budget.png",
        "quality-share.png",
    }
    with (tmp_path / "out" / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(study.points)
    assert float(rows[0]["own"]) == pytest.approx(study.points[0].own.value, abs=1e-6)
    found = json.loads((tmp_path / "out" / "points.json").read_text())
    assert found["infeasible"] == {str(8 * MIB): "nothing fits into 8.0 MiB"}
    assert found["finding"] == finding(study)
