"""A study's points and claims as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sdpack.report.study_finding import finding
from sdpack.report.study_points import GROUPS, StudyPoint, StudyResult

CSV_COLUMNS = (
    "budget_bytes",
    "why",
    "mix",
    "placement",
    "peak_bytes",
    "pictures",
    "own",
    "own_low",
    "own_high",
    "difference",
    "difference_low",
    "difference_high",
    *(f"{group}_bytes" for group in GROUPS),
    *(f"{group}_share" for group in GROUPS),
)


def as_json(study: StudyResult) -> dict[str, Any]:
    """Every point and claim, as values for JSON."""
    return {
        "study": study.record.name,
        "metric": study.record.metric,
        "prompts": len(study.record.prompts),
        "points": [asdict(point) for point in study.points],
        "claims": [
            {
                "budget_bytes": claim.budget_bytes,
                "first": claim.first,
                "second": claim.second,
                "difference": None if claim.difference is None else asdict(claim.difference),
                "verdict": claim.verdict,
            }
            for claim in study.claims
        ],
        "infeasible": {
            str(b.budget_bytes): b.infeasible for b in study.record.budgets if not b.runs
        },
        "finding": finding(study),
    }


def as_csv(points: Sequence[StudyPoint]) -> str:
    """Every point as a line of CSV, after a header."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for p in points:
        numbers = (p.own.value, p.own.low, p.own.high)
        away = (p.difference.value, p.difference.low, p.difference.high)
        writer.writerow(
            [
                p.budget_bytes,
                p.why,
                p.mix,
                p.placement,
                p.peak_bytes,
                p.pictures,
                *(f"{value:.6f}" for value in (*numbers, *away)),
                *(p.weights[group] for group in GROUPS),
                *(f"{p.shares[group]:.4f}" for group in GROUPS),
            ]
        )
    return held.getvalue()
