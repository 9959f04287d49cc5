from __future__ import annotations

from pathlib import Path

from sdpack.report.build_page import report, summary
from sdpack.report.points import read_build


def test_the_words_name_the_winner_and_its_rival(many: Path) -> None:
    build = read_build(many)
    words = "\n".join(summary(build))
    winner, *others = build.points
    rival = max(others, key=lambda point: point.difference.value)
    assert words.startswith(f"{winner.mix} was chosen for ")
    assert f"judge similarity {winner.own.value:.3f} over {winner.images} images" in words
    assert f"{rival.mix} came closest: {rival.difference.signed()}" in words


def test_the_tables_have_a_row_for_every_mix_and_cost(many: Path) -> None:
    build = read_build(many)
    mixes, costs, *_ = report(build, None).tables
    assert len(mixes.rows) == len(build.points) == 216
    assert len(costs.rows) == len(build.costs)
    assert all(len(row) == len(mixes.columns) for row in mixes.rows)
