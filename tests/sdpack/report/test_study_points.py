from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sdpack.documents.record import BEST, DENOISER_FIRST, ENCODER_FIRST, LIKE_STABLE_DIFFUSION
from sdpack.errors import StoreError
from sdpack.report.study_finding import finding
from sdpack.report.study_page import study_figures
from sdpack.report.study_points import labels, read_study
from sdpack.store.ledger import Ledger

from benchmarks.example_ledgers import MIB, ledger_of_study


def test_points_are_placed_by_their_difference_from_the_best_at_the_budget(ledger: Path) -> None:
    study = read_study(ledger)
    points = {(p.budget_bytes // MIB, p.why): p for p in study.points}
    assert len(points) == 5 + 4 + 4
    best = points[16, BEST]
    lost = points[16, DENOISER_FIRST]
    assert lost.difference.value == pytest.approx(-0.05, abs=0.005)
    assert lost.quality.value == pytest.approx(best.quality.value + lost.difference.value)
    assert best.difference.value == best.difference.high == 0
    assert best.weights == {"text": 2 * MIB, "denoiser": 2 * MIB, "decoder": 6 * MIB}
    assert best.shares["text"] == pytest.approx(0.2)


def test_claims_say_what_holds_and_what_does_not(ledger: Path) -> None:
    claims = {(c.budget_bytes // MIB, c.first, c.second): c for c in read_study(ledger).claims}
    assert claims[16, ENCODER_FIRST, DENOISER_FIRST].verdict == "better"
    assert claims[16, BEST, LIKE_STABLE_DIFFUSION].verdict == "better"
    assert claims[16, BEST, "all w8"].verdict == "not told apart"
    assert claims[64, ENCODER_FIRST, DENOISER_FIRST].verdict == "the same mix"
    assert (64, BEST, LIKE_STABLE_DIFFUSION) not in claims


def test_a_deleted_row_takes_its_points_along(ledger: Path) -> None:
    before = read_study(ledger)
    gone = next(p.mix for p in before.points if p.why == DENOISER_FIRST)
    content = before.record.entrant(gone).parts
    with sqlite3.connect(ledger) as database:
        deleted = database.execute(
            "DELETE FROM measurement WHERE kind = ? AND inputs LIKE ? AND inputs LIKE ?",
            (
                before.record.metric,
                *(f'%"{part.content}"%' for part in list(content.values())[:2]),
            ),
        )
        assert deleted.rowcount == 2
    after = read_study(ledger)
    assert {p.mix for p in before.points} - {p.mix for p in after.points} == {gone}
    rows = next(f.rows for f in study_figures(after) if f.name == "quality-budget")
    assert gone not in {row["mix"] for row in rows}
    assert "“encoder first” against “denoiser first”: the same mix at" in "\n".join(finding(after))


def test_without_a_study_it_says_so(tmp_path: Path) -> None:
    Ledger(tmp_path / "l.sqlite").close()
    with pytest.raises(StoreError, match=r"no finished study; run `sdpack study` first"):
        read_study(tmp_path / "l.sqlite")


def test_a_few_prompts_tell_nothing(tmp_path: Path) -> None:
    ledger_of_study(tmp_path / "few.sqlite", prompts=4)
    study = read_study(tmp_path / "few.sqlite")
    verdicts = {claim.verdict for claim in study.claims}
    assert verdicts == {"too few prompts to tell", "the same mix"}


def test_without_the_scores_of_a_best_mix_there_is_no_page(ledger: Path) -> None:
    with sqlite3.connect(ledger) as database:
        database.execute("DELETE FROM measurement WHERE kind = 'judge similarity'")
    with pytest.raises(StoreError, match=r"no scores of b/w8 .*, the best mix at 16.0 MiB; run"):
        read_study(ledger)


def test_budgets_that_round_to_the_same_are_kept_apart() -> None:
    found = labels([8 * MIB, 8 * MIB + 1000, 16 * MIB])
    assert len(set(found.values())) == 3
    assert labels([8 * MIB, 16 * MIB]) == {8 * MIB: "8.0 MiB", 16 * MIB: "16.0 MiB"}
