from __future__ import annotations

from pathlib import Path

from sdpack.documents.evidence import LatencyLimit
from sdpack.report.study_finding import finding
from sdpack.report.study_points import read_study


def test_the_finding_repeats_the_claims_and_no_more(ledger: Path) -> None:
    said = "\n".join(finding(read_study(ledger)))
    assert "2 budgets from 16.0 MiB to 64.0 MiB, 32 prompts each" in said
    assert "“encoder first” against “denoiser first”: better at 16.0 MiB (+0.0" in said
    assert "; the same mix at 64.0 MiB." in said
    assert "The best mix against all w8: not told apart at 16.0 MiB" in said
    assert "16.0 MiB: 20% / 20% / 60%, and mixes that tied with it give the text encoder" in said
    assert "Nothing fits into 8.0 MiB." in said
    assert "; worse at" not in said
    assert ": worse at" not in said


def test_budgets_at_which_nothing_is_fast_enough_are_told_with_the_limit(ledger: Path) -> None:
    study = read_study(ledger)
    smallest, *others = study.record.budgets
    assert smallest.infeasible is not None
    slow = smallest.model_copy(update={"infeasible": "no mix draws an image within 2 s: ..."})
    limit = LatencyLimit(max_seconds=2, is_measured=True, where="here", left_out=3)
    record = study.record.model_copy(update={"budgets": (slow, *others), "latency_limit": limit})
    study.record = record
    said = "\n".join(finding(study))
    assert "No mix that fits is fast enough at 8.0 MiB." in said
    assert "Nothing fits" not in said
    assert "longer than 2 s per image (measured on here) are left out." in said
