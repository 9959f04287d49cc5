"""A study's points and claims, computed from the rows of a ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sdpack.documents.record import (
    BEST,
    DENOISER_FIRST,
    DISTANCE,
    ENCODER_FIRST,
    LATENCY,
    LIKE_STABLE_DIFFUSION,
    STUDY,
    BudgetFigures,
    Entrant,
    Run,
    StudyRecord,
)
from sdpack.domain.estimate import ENOUGH, Estimate
from sdpack.errors import StoreError
from sdpack.report.paired import mean_score, paired
from sdpack.report.points import DrawnMixes, chosen, ledger_of
from sdpack.store.ledger import Measurement, read_rows
from sdpack.units import format_bytes

GROUPS = ("text", "denoiser", "decoder")
BETTER, WORSE, NOT_TOLD = "better", "worse", "not told apart"
SAME_MIX, TOO_FEW = "the same mix", "too few prompts to tell"
VERDICTS = (BETTER, WORSE, NOT_TOLD, SAME_MIX, TOO_FEW)


@dataclass(frozen=True)
class StudyPoint:
    """One mix at one budget.

    Attributes:
        why: how it was picked, or the text encoder it is the best for.
        quality: the best mix's mean and the difference from that; the difference of the best
            itself is 0, without an interval.
        difference: from the best mix at the budget, over the prompts both drew.
        shares: shares of the bytes of all text encoders, the denoiser and the decoder.
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
    """The comparison of two mixes at one budget.

    Attributes:
        first, second: how the two mixes were picked.
        difference: the first mix's score minus the second's; None if both are the same mix.
        prompts: how many both drew.
    """

    budget_bytes: int
    first: str
    second: str
    difference: Estimate | None
    prompts: int

    @property
    def verdict(self) -> str:
        """One of VERDICTS; differences are judged at 95 %."""
        if self.difference is None:
            return SAME_MIX
        if self.prompts < ENOUGH:
            return TOO_FEW
        if self.difference.low > 0:
            return BETTER
        return WORSE if self.difference.high < 0 else NOT_TOLD


class StudyResult(DrawnMixes):
    """One study, read from a ledger.

    Raises:
        StoreError: nothing fits any budget, or the scores of a budget's best mix are missing.
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
        """The names of its budgets, by bytes."""
        return labels(budget.budget_bytes for budget in self.record.budgets)

    @property
    def feasible(self) -> list[BudgetFigures]:
        """The budgets that at least one mix fits."""
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
        entrant, away = self.record.entrant(run.mix), apart.estimate(self.record.prompt_of)
        own = mean_score(mine, self.record.prompt_of)
        level = float(np.mean(list(best.values())))
        placed = Estimate(level + away.value, level + away.low, level + away.high)
        weights = grouped(entrant)
        whole = sum(weights.values())
        yield StudyPoint(
            budget.budget_bytes,
            run.why,
            run.mix,
            str(run.placement),
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
        """The smallest and largest share of the text encoder among mixes tied with the best."""
        shares = []
        for mix in budget.level:
            weights = grouped(self.record.entrant(mix))
            shares.append(weights["text"] / sum(weights.values()))
        return min(shares), max(shares)

    @cached_property
    def claims(self) -> list[Claim]:
        """Every comparison, at every budget that has both mixes."""
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
        away = apart.estimate(self.record.prompt_of)
        return Claim(budget.budget_bytes, first, second, away, len(apart))


def grouped(entrant: Entrant) -> dict[str, int]:
    """Bytes of the weights of all text encoders, the denoiser and the decoder."""
    found = dict.fromkeys(GROUPS, 0)
    for role, part in entrant.parts.items():
        found["text" if role.encodes_text else role.value] += part.weight_bytes
    return found


def labels(budgets: Iterable[int]) -> dict[int, str]:
    """A distinct name for each budget, in ascending order."""
    every = sorted(set(budgets))
    found = {budget: format_bytes(budget) for budget in every}
    if len(set(found.values())) < len(every):
        found = {budget: f"{budget:,} B" for budget in every}
    return found


def read_study(path: Path) -> StudyResult:
    """The last study of a ledger.

    Raises:
        StoreError: the ledger is missing, damaged or of another schema, or it holds no study.
    """
    ledger = ledger_of(path)
    record, made_at = chosen(ledger, StudyRecord, STUDY, None)
    return StudyResult(record, read_rows(ledger, (record.metric, LATENCY, DISTANCE)), made_at)
