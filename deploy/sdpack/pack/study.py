"""Where the bytes should go: the best mix at each of several budgets, and what was not chosen.

Every budget asks the same candidates, prompts and noise, so each picture is drawn once however many
budgets it serves. Beside the best mix, at each budget these are measured on all the prompts:

    all PRECISION          every part stored alike
    encoder first          the largest text encoder that fits with anything, then the largest
                           denoiser that fits beside it, then the largest decoder
    denoiser first         the other way round
    like Stable Diffusion  the mix whose weights are shared out most nearly as in Stable Diffusion
                           1.x, which has 12 % of its parameters in the text encoder, 80 % in the
                           UNet and 8 % in the VAE

Where such a rule leaves precisions open, those are taken that promise the best pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from sdpack.bundle import PlacementFigures
from sdpack.errors import InfeasibleError, InputError
from sdpack.evaluate.race import BROKEN_SCORE, Fate
from sdpack.ledger import write_rows
from sdpack.pack.build import Say, buildable, fitting, opened
from sdpack.pack.contest import Contest, Settled
from sdpack.pack.fit import Fitted
from sdpack.pack.footprints import Footprints
from sdpack.pack.mix import Mix, Variant
from sdpack.pack.order import Order, check
from sdpack.pack.propose import Proposals
from sdpack.pack.recording import Roster, keep, rows_of
from sdpack.pack.workshop import Workshop
from sdpack.placement import Role
from sdpack.precision import Precision
from sdpack.record import (
    BEST,
    DENOISER_FIRST,
    ENCODER_FIRST,
    LIKE_STABLE_DIFFUSION,
    STABLE_DIFFUSION,
    STUDY,
    BudgetFigures,
    Run,
    StudyRecord,
)

NEAR = 0.02  # of shares: as near to Stable Diffusion's
FIXED = 3  # budgets at which every text encoder is tried

Pick = Callable[["Budget"], Fitted | None]


@dataclass(frozen=True)
class Studied:
    """A finished study.

    Attributes:
        pictures: that were drawn for it; none when it is run again.
        exhaustive: that drawing every mix of the largest budget in full would take.
    """

    record: StudyRecord
    pictures: int
    exhaustive: int


def study(order: Order, budgets: Sequence[int], out: Path, say: Say = lambda _: None) -> Studied:
    """Find the best mix at each budget, keep what was found in the ledger, and write its rows.

    Args:
        order: its budget is the largest.
        out: the file of rows.

    Raises:
        InputError: no budget is given.
        InfeasibleError: nothing fits even the largest.
        SdpackError: anything else that failed, in one line.
    """
    if not budgets:
        raise InputError("no budgets are given; write them like 8MiB:64MiB:8")
    check(order)
    with opened(order, say) as workshop:
        return Study(workshop, sorted(set(budgets)), out).run()


@dataclass
class Budget:
    """One budget whose race is over."""

    budget_bytes: int
    contest: Contest
    settled: Settled

    @cached_property
    def worth(self) -> Mapping[Mix, float]:
        """What each mix that fits promises: as it was drawn, or as a screening put it together."""
        fitted, screened = self.contest.fitted, self.settled.screened
        if screened is not None:
            return {f.mix: float(w) for f, w in zip(fitted, screened.foretold, strict=True)}
        return {fitted[s.arm].mix: s.mean for s in self.settled.outcome.standings}

    @property
    def best(self) -> Fitted:
        return self.contest.fitted[self.settled.outcome.winner]

    @property
    def level(self) -> list[Mix]:
        """The best mix and those that could not be told from it, or are as good."""
        level = (Fate.WON, Fate.TIED, Fate.SAME)
        found = [s for s in self.settled.outcome.standings if s.fate in level]
        return [self.contest.fitted[s.arm].mix for s in found]

    def promising(self, fitted: Iterable[Fitted]) -> Fitted | None:
        """The one that promises most, the smaller of equals."""
        working = [each for each in fitted if self.worth[each.mix] > BROKEN_SCORE]
        return min(working, key=lambda f: (-self.worth[f.mix], f.size_bytes, f.mix), default=None)


@dataclass
class Study:
    """Asks one workshop about several budgets."""

    workshop: Workshop
    budgets: Sequence[int]
    out: Path
    _mixes: dict[Mix, None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.footprints = Footprints(self.workshop)

    def run(self) -> Studied:
        """All of it."""
        possible = buildable(self.workshop)
        found: list[BudgetFigures] = []
        settled: list[Budget] = []
        last: Contest | None = None
        for number, budget in enumerate(self.budgets, 1):
            self.workshop.say(f"budget {number} of {len(self.budgets)}")
            try:
                contest = self._contest(possible, budget, last)
            except InfeasibleError as error:
                if budget == self.budgets[-1]:
                    raise
                found.append(BudgetFigures(budget_bytes=budget, infeasible=str(error)))
                continue
            settled.append(Budget(budget, contest, contest.settle()))
            found.append(self._figures(settled[-1]))
            last = contest
        found = self._with_encoders(found, settled)
        assert last is not None
        record = StudyRecord(
            **Roster(last, self.footprints).fields(self.workshop.order.out.name, self._mixes),
            budgets=tuple(found),
        )
        keep(last, STUDY, record, {"budgets": list(self.budgets)})
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_rows(self.out, rows_of(last, STUDY, record))
        return Studied(record, last.studio.drawn, len(last.fitted) * last.rules.most)

    def _contest(self, possible: Sequence[Mix], budget: int, last: Contest | None) -> Contest:
        mixed = list(Proposals(self.footprints, possible, budget).mixes())
        fitted = fitting(self.footprints, [*possible, *mixed], budget)
        studio = None if last is None else last.studio
        return Contest(self.workshop, [*possible, *mixed], fitted, self.workshop.say, studio)

    def _figures(self, budget: Budget) -> BudgetFigures:
        runs = [self._run(budget, BEST, budget.best)]
        for why, pick in self._rules():
            fitted = pick(budget)
            if fitted is not None:
                runs.append(self._run(budget, why, fitted))
        for mix in budget.level:
            self._mixes[mix] = None
        return BudgetFigures(
            budget_bytes=budget.budget_bytes,
            fitting=len(budget.contest.fitted),
            runs=tuple(runs),
            level=tuple(str(mix) for mix in budget.level),
        )

    def _run(self, budget: Budget, why: str, fitted: Fitted) -> Run:
        """A mix measured on all the prompts."""
        budget.contest.scores([fitted.mix], range(budget.contest.rules.most))
        self._mixes[fitted.mix] = None
        return Run(
            why=why,
            mix=str(fitted.mix),
            placement=PlacementFigures.of(fitted.placement),
            peak_bytes=fitted.peak.bytes,
        )

    def _rules(self) -> Iterator[tuple[str, Pick]]:
        for precision in self.workshop.order.precisions:
            yield f"all {precision}", partial(_all_in, precision)
        yield ENCODER_FIRST, lambda budget: self._first(budget, _ENCODER_FIRST)
        yield DENOISER_FIRST, lambda budget: self._first(budget, _DENOISER_FIRST)
        yield LIKE_STABLE_DIFFUSION, self._like_stable_diffusion

    def _first(self, budget: Budget, order: Sequence[Callable[[Role], bool]]) -> Fitted | None:
        """The candidates with the most parameters, group of roles by group."""
        left = list(budget.contest.fitted)
        for is_one in order:
            sizes = [self._parameters(each.mix, is_one) for each in left]
            most = max(sizes)
            left = [each for each, size in zip(left, sizes, strict=True) if size == most]
        return budget.promising(left)

    def _parameters(self, mix: Mix, is_one: Callable[[Role], bool]) -> int:
        return sum(
            self.workshop.checkpoint(v.role, v.candidate).parameters
            for v in mix.variants
            if is_one(v.role)
        )

    def _like_stable_diffusion(self, budget: Budget) -> Fitted | None:
        apart = {each.mix: self._apart(each) for each in budget.contest.fitted}
        least = min(apart.values())
        return budget.promising(f for f in budget.contest.fitted if apart[f.mix] <= least + NEAR)

    def _apart(self, fitted: Fitted) -> float:
        """By how much the shares of the weights differ from Stable Diffusion's, in all."""
        taken = dict.fromkeys(STABLE_DIFFUSION, 0)
        for variant in fitted.mix.variants:
            group = "text" if variant.role.encodes_text else variant.role.value
            taken[group] += self._weight(variant, fitted)
        whole = sum(taken.values())
        return sum(abs(taken[group] / whole - s) for group, s in STABLE_DIFFUSION.items())

    def _weight(self, variant: Variant, fitted: Fitted) -> int:
        return self.footprints.of(variant, fitted.placement).weight_bytes

    def _with_encoders(
        self, found: Sequence[BudgetFigures], settled: Sequence[Budget]
    ) -> list[BudgetFigures]:
        """The same, at some budgets with the best mix of every text encoder's variants."""
        chosen = {settled[place].budget_bytes for place in _spread(len(settled), FIXED)}
        by_budget = {budget.budget_bytes: budget for budget in settled}
        return [
            each.model_copy(update={"by_encoder": self._by_encoder(by_budget[each.budget_bytes])})
            if each.budget_bytes in chosen
            else each
            for each in found
        ]

    def _by_encoder(self, budget: Budget) -> tuple[Run, ...]:
        groups: dict[tuple[Variant, ...], list[Fitted]] = {}
        for fitted in budget.contest.fitted:
            encoders = _encoders(fitted.mix)
            if all(v.precision is not Precision.MIXED for v in encoders):
                groups.setdefault(encoders, []).append(fitted)
        chosen = [budget.promising(group) for _, group in sorted(groups.items())]
        return tuple(
            self._run(budget, " + ".join(map(str, _encoders(each.mix))), each)
            for each in chosen
            if each is not None
        )


def _encoders(mix: Mix) -> tuple[Variant, ...]:
    return tuple(variant for variant in mix.variants if variant.role.encodes_text)


def _is_encoder(role: Role) -> bool:
    return role.encodes_text


def _is_denoiser(role: Role) -> bool:
    return role is Role.DENOISER


def _is_decoder(role: Role) -> bool:
    return role is Role.DECODER


_ENCODER_FIRST = (_is_encoder, _is_denoiser, _is_decoder)
_DENOISER_FIRST = (_is_denoiser, _is_encoder, _is_decoder)


def _all_in(precision: Precision, budget: Budget) -> Fitted | None:
    return budget.promising(
        fitted
        for fitted in budget.contest.fitted
        if all(variant.precision is precision for variant in fitted.mix.variants)
    )


def _spread(count: int, most: int) -> list[int]:
    """At most so many places, from the first to the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
