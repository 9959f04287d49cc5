from __future__ import annotations

from pathlib import Path

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
