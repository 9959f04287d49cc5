from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from sdpack.report.study_files import CSV_COLUMNS, as_csv, as_json
from sdpack.report.study_finding import finding
from sdpack.report.study_points import read_study


def test_every_point_is_a_line_of_csv(ledger: Path) -> None:
    points = read_study(ledger).points
    rows = list(csv.DictReader(io.StringIO(as_csv(points))))
    assert len(rows) == len(points) > 0
    assert list(rows[0]) == list(CSV_COLUMNS)
    for row, point in zip(rows, points, strict=True):
        assert (row["mix"], int(row["budget_bytes"])) == (point.mix, point.budget_bytes)
        shares = sum(float(row[f"{group}_share"]) for group in point.shares)
        assert shares == pytest.approx(1, abs=1e-3)


def test_the_json_has_the_points_the_claims_and_the_finding(ledger: Path) -> None:
    study = read_study(ledger)
    values = json.loads(json.dumps(as_json(study)))
    assert [point["mix"] for point in values["points"]] == [point.mix for point in study.points]
    assert [claim["verdict"] for claim in values["claims"]] == [c.verdict for c in study.claims]
    assert values["finding"] == finding(study)
    assert list(values["infeasible"]) == [str(8 * 2**20)]
