from __future__ import annotations

from pathlib import Path

from sdpack.report.points import read_build
from sdpack.report.precision_chart import cost_of_precisions


def test_every_cost_is_a_row_with_its_change(many: Path) -> None:
    build = read_build(many)
    figure = cost_of_precisions(build)
    assert figure is not None
    assert len(figure.rows) == len(build.costs) > 0
    for row, cost in zip(figure.rows, build.costs, strict=True):
        assert row["role"] == cost.role.words
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["what"] in figure.description
