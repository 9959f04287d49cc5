"""A study's numbers, and what they show, read off the rows of a ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sdpack.documents.record import (
    BEST,
    DENOISER_FIRST,
    DISTANCE,
    ENCODER_FIRST,
    FIDELITY,
    LATENCY,
    LIKE_STABLE_DIFFUSION,
    STUDY,
    BudgetFigures,
    Entrant,
    Run,
    StudyRecord,
)
from sdpack.domain.estimate import ENOUGH, Estimate, difference_estimate, mean_estimate
from sdpack.errors import StoreError
from sdpack.report.points import DrawnMixes, chosen, ledger_of, paired
from sdpack.store.ledger import Measurement, read_rows
from sdpack.units import format_bytes

GROUPS = ("text", "denoiser", "decoder")
BETTER, WORSE, NOT_TOLD = "better", "worse", "not told apart"
SAME_MIX, TOO_FEW = "both one mix", "too few prompts to tell"
VERDICTS = (BETTER, WORSE, NOT_TOLD, SAME_MIX, TOO_FEW)
COLUMNS = (
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


@dataclass(frozen=True)
class StudyPoint:
    """One mix at one budget.

    Attributes:
        why: how it was picked, or the text encoder it is the best for.
        quality: the best mix's mean and the difference from that; of the best itself there is none.
        difference: from the best mix at the budget, over the prompts both drew.
        shares: of the weights' bytes: all text encoders, denoiser, decoder.
    """

    budget_bytes: int
    why: str
    mix: str
    placement: str
    peak_bytes: int
    own: Estimate
    quality: Estimate
    difference: Estimate
    pictures: int
    weights: dict[str, int]
    shares: dict[str, float]
    by_encoder: bool


@dataclass(frozen=True)
class Claim:
    """What the numbers say of one question at one budget.

    Attributes:
        difference: the first mix's score minus the second's; None where both are one mix.
        prompts: both drew.
        verdict: "better", "worse", "not told apart" (at 95 %), that both are one mix, or that there
            are too few prompts to tell.
    """

    budget_bytes: int
    first: str
    second: str
    difference: Estimate | None
    prompts: int

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return SAME_MIX
        if self.prompts < ENOUGH:
            return TOO_FEW
        if self.difference.low > 0:
            return BETTER
        return WORSE if self.difference.high < 0 else NOT_TOLD


class StudyResult(DrawnMixes):
    """One study as a ledger has it.

    Raises:
        StoreError: the scores of a budget's best mix are not there.
    """

    made_by = STUDY

    def __init__(self, record: StudyRecord, rows: Iterable[Measurement], made_at: str) -> None:
        super().__init__(record, rows, made_at)
        self.record = record
        for budget in self.feasible:
            best = self._of(budget, BEST)
            if not self.scores(best):
                raise StoreError(
                    f"the ledger holds no scores of {best.mix}, the best mix at "
                    f"{format_bytes(budget.budget_bytes)}; run `sdpack study` again"
                )
        if not self.feasible:
            raise StoreError(f"{record.name}: nothing fits any of its budgets; give larger ones")

    @cached_property
    def names(self) -> dict[int, str]:
        """What its budgets are called."""
        return labels(budget.budget_bytes for budget in self.record.budgets)

    @property
    def feasible(self) -> list[BudgetFigures]:
        return [budget for budget in self.record.budgets if budget.runs]

    @cached_property
    def points(self) -> list[StudyPoint]:
        """Every mix at every budget it was picked for."""
        return [
            point
            for budget in self.feasible
            for run in (*budget.runs, *budget.by_encoder)
            for point in self._point(budget, run, run in budget.by_encoder)
        ]

    def _point(self, budget: BudgetFigures, run: Run, by_encoder: bool) -> Iterator[StudyPoint]:
        best = self.scores(self._of(budget, BEST))
        mine = self.scores(self.record.entrant(run.mix))
        apart = paired(mine, best)
        if not len(apart):
            return
        entrant, away = self.record.entrant(run.mix), difference_estimate(apart)
        own = mean_estimate(np.array(list(mine.values())))
        level = float(np.mean(list(best.values())))
        placed = Estimate(level + away.value, level + away.low, level + away.high)
        weights = grouped(entrant)
        whole = sum(weights.values())
        yield StudyPoint(
            budget.budget_bytes,
            run.why,
            run.mix,
            str(run.placement.placement()),
            run.peak_bytes,
            own,
            placed,
            away,
            len(apart),
            weights,
            {group: count / whole for group, count in weights.items()},
            by_encoder,
        )

    def _of(self, budget: BudgetFigures, why: str) -> Entrant:
        return self.record.entrant(next(run.mix for run in budget.runs if run.why == why))

    def level_shares(self, budget: BudgetFigures) -> tuple[float, float]:
        """The least and the largest share of the text encoder among mixes level with the best."""
        shares = []
        for mix in budget.level:
            weights = grouped(self.record.entrant(mix))
            shares.append(weights["text"] / sum(weights.values()))
        return min(shares), max(shares)

    @cached_property
    def claims(self) -> list[Claim]:
        """Every question, at every budget it can be asked at."""
        pairs = [(ENCODER_FIRST, DENOISER_FIRST), (BEST, LIKE_STABLE_DIFFUSION)]
        found = []
        for budget in self.feasible:
            uniform = [run.why for run in budget.runs if run.why.startswith("all ")]
            for first, second in (*pairs, *((BEST, why) for why in uniform)):
                there = {run.why: run.mix for run in budget.runs}
                if first not in there or second not in there:
                    continue
                found.append(self._claim(budget, first, second, there[first], there[second]))
        return [claim for claim in found if claim is not None]

    def _claim(
        self, budget: BudgetFigures, first: str, second: str, one: str, other: str
    ) -> Claim | None:
        if one == other:
            return Claim(budget.budget_bytes, first, second, None, 0)
        mine, theirs = (self.scores(self.record.entrant(mix)) for mix in (one, other))
        apart = paired(mine, theirs)
        if not len(apart):
            return None
        away = difference_estimate(apart)
        return Claim(budget.budget_bytes, first, second, away, len(apart))


def grouped(entrant: Entrant) -> dict[str, int]:
    """Bytes of the weights of all text encoders, the denoiser and the decoder."""
    found = dict.fromkeys(GROUPS, 0)
    for role, part in entrant.parts.items():
        found["text" if role.encodes_text else role.value] += part.weight_bytes
    return found


def labels(budgets: Iterable[int]) -> dict[int, str]:
    """What budgets are called, none the same as another, ascending."""
    every = sorted(set(budgets))
    found = {budget: format_bytes(budget) for budget in every}
    if len(set(found.values())) < len(every):
        found = {budget: f"{budget:,} B" for budget in every}
    return found


def _rule(record: StudyRecord) -> str:
    """How the best mix at a budget was chosen."""
    if record.prefer is None:  # schema 1
        return (
            "The best mix at a budget won its race: the smallest of those not distinguished from "
            f"the leader, nor seen to score less by more than {record.indifference:g}, unless its "
            "pictures taken together were farther from real ones."
        )
    rule = (
        "The best mix at a budget won its race: it has the best mean, or it was shown equal to "
        f"every mix with a better one (the whole interval within {record.indifference:g})"
    )
    if record.prefer != "quality":
        rule += f", or, as --prefer {record.prefer} allows, not distinguished from it"
    return f"{rule}, unless its pictures taken together were farther from real ones."


def finding(study: StudyResult) -> list[str]:
    """What the numbers show, in sentences, and no more than they show."""
    record, budgets = study.record, study.feasible
    first, last, names = budgets[0], budgets[-1], study.names
    lines = [
        f"{len(budgets)} budgets from {names[first.budget_bytes]} to "
        f"{names[last.budget_bytes]}, {len(record.prompts)} prompts each, "
        f"{record.metric}. Better and worse are at 95 % for each comparison by itself, not for "
        "all of them together.",
        f"{_rule(record)} It was chosen on the same prompts it is compared on here, which favours "
        "it.",
    ]
    if record.metric == FIDELITY:
        lines.append("Fidelity is not quality: it measures how close pictures are to fp32.")
    lines += [_verdicts(study, ENCODER_FIRST, DENOISER_FIRST, _IMAGEN)]
    lines += [_shares(study, first, last)]
    lines += [_verdicts(study, BEST, LIKE_STABLE_DIFFUSION, _LIKE)]
    uniform = dict.fromkeys(c.second for c in study.claims if c.second.startswith("all "))
    lines += [_verdicts(study, BEST, why, "") for why in uniform]
    broken = dict.fromkeys(said for budget in budgets for said in budget.broken)
    if broken:
        lines.append(f"Picked, but found to draw broken pictures: {', '.join(broken)}.")
    missing = [b for b in record.budgets if not b.runs]
    if missing:
        none = [b for b in missing if "nothing fits" in (b.infeasible or "")]
        for group, why in (
            (none, "Nothing fits into"),
            ([b for b in missing if b not in none], "The best mix draws broken pictures at"),
        ):
            if group:
                said = ", ".join(names[budget.budget_bytes] for budget in group)
                lines.append(f"{why} {said}.")
    return [line for line in lines if line]


_IMAGEN = (
    "Imagen found that growing the text encoder helps more than growing the UNet; we read "
    "that, for a fixed budget, as the encoder first: "
)
_LIKE = "Stable Diffusion 1.x divides its parameters 12 / 80 / 8, its whole VAE counted last: "


def _verdicts(study: StudyResult, first: str, second: str, before: str) -> str:
    claims = [c for c in study.claims if (c.first, c.second) == (first, second)]
    if not claims:
        return ""
    by_verdict: dict[str, list[str]] = {}
    for alike in _neighbours(study, claims):
        by_verdict.setdefault(alike[0].verdict, []).append(_said(study, alike))
    told = [f"{name} at {', '.join(by_verdict[name])}" for name in VERDICTS if name in by_verdict]
    one = _words(first)
    one = one if before else one[0].upper() + one[1:]
    return f"{before}{one} against {_words(second)}: {'; '.join(told)}."


def _neighbours(study: StudyResult, claims: Sequence[Claim]) -> list[list[Claim]]:
    """Claims of which the same was seen at budgets next to each other, together."""
    places = {budget.budget_bytes: n for n, budget in enumerate(study.record.budgets)}
    found: list[list[Claim]] = []
    for claim in claims:
        before = found[-1][-1] if found else None
        if (
            before is not None
            and (before.verdict, before.difference) == (claim.verdict, claim.difference)
            and places[claim.budget_bytes] == places[before.budget_bytes] + 1
        ):
            found[-1].append(claim)
        else:
            found.append([claim])
    return found


def _said(study: StudyResult, alike: Sequence[Claim]) -> str:
    """At which budgets one after the other the same was seen, and what."""
    budgets = [study.names[claim.budget_bytes] for claim in alike]
    told = budgets[0] if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}"
    away = alike[0].difference
    return told if away is None else f"{told} ({away.signed()})"


def _words(why: str) -> str:
    if why == BEST:
        return "the best mix"
    return why if why.startswith("all ") else f"“{why}”"


def _shares(study: StudyResult, first: BudgetFigures, last: BudgetFigures) -> str:
    said = []
    for budget in dict.fromkeys((first.budget_bytes, last.budget_bytes)):
        figures = next(b for b in study.feasible if b.budget_bytes == budget)
        best = next(p for p in study.points if p.budget_bytes == budget and p.why == BEST)
        low, high = study.level_shares(figures)
        text = f"{study.names[budget]}: {_percent(best)}"
        if high > low:
            text += f", and mixes that tied with it give the text encoder {low:.0%} to "
            text += f"{high:.0%}"
        said.append(text)
    return (
        "Shares of the weights (text encoder / denoiser / decoder) in the best mix at "
        + "; at ".join(said)
        + "."
    )


def _percent(point: StudyPoint) -> str:
    return " / ".join(f"{point.shares[group]:.0%}" for group in GROUPS)


def as_json(study: StudyResult) -> dict[str, Any]:
    """Every point and claim, for machines."""
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
    """Every point, a line each."""
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(COLUMNS)
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


def read_study(path: Path) -> StudyResult:
    """The last study of a ledger.

    Raises:
        StoreError: there is no ledger, it is damaged, of another schema, or holds no study.
    """
    ledger = ledger_of(path)
    record, made_at = chosen(ledger, StudyRecord, STUDY, None)
    return StudyResult(record, read_rows(ledger, (record.metric, LATENCY, DISTANCE)), made_at)
