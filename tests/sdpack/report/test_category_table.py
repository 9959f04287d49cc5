from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sdpack.report.build_page import report
from sdpack.report.category_table import category_table, study_category_table
from sdpack.report.points import Build, read_build
from sdpack.report.study_page import study_page
from sdpack.report.study_points import read_study
from sdpack.store.ledger import Ledger

from benchmarks.example_ledgers import (
    PROMPTS,
    entrant,
    ledger_of_study,
    record,
    write_build,
    write_scores,
)


def build_of(folder: Path, categories: list[str]) -> Build:
    """The winner scores 0.5 in "count" and 0.3 in "style", the other 0.1 less in "style"."""
    won = entrant("aaa", ["fp16"] * 3, outcome="won", prompts=16)
    other = entrant("aaa", ["w4"] * 3, outcome="worse", prompts=16)
    found = record([won, other], 16, categories=categories)
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        write_scores(ledger, found, won, [0.5, 0.3] * 8)
        write_scores(ledger, found, other, [0.5, 0.2] * 8)
        write_build(ledger, found)
    return read_build(folder / "ledger.sqlite")


def test_each_category_has_its_own_score_and_difference(tmp_path: Path) -> None:
    build = build_of(tmp_path, ["count", "style"] * 8)
    (table,) = category_table(build)
    assert table.rows[0] == ["count", "8", "0.500 [0.500, 0.500]", "+0.000"]
    assert table.rows[1][:2] == ["style", "8"]
    assert table.rows[1][3] == "-0.100"
    assert len(table.columns) == 4
    assert table in report(build, None).tables


def test_prompts_without_categories_have_no_table(tmp_path: Path) -> None:
    assert not list(category_table(build_of(tmp_path, [])))


def test_a_study_has_a_table_of_categories_at_each_budget_that_something_fits(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger_of_study(path, categories=["count", "style"] * (PROMPTS // 2))
    found = read_study(path)
    (table,) = study_category_table(found)
    assert [row[:2] for row in table.rows] == [
        [budget, name]
        for budget in ("16.0 MiB", "64.0 MiB")[: len(found.feasible)]
        for name in ("count", "style")
    ]
    assert all(row[2] == str(PROMPTS // 2) for row in table.rows)
    assert float(table.rows[0][5].split()[0]) < -0.04  # denoiser first is worse by 0.05
    assert table in study_page(found).tables


def test_a_study_without_categories_has_no_such_table(tmp_path: Path) -> None:
    ledger_of_study(tmp_path / "ledger.sqlite")
    assert not list(study_category_table(read_study(tmp_path / "ledger.sqlite")))
