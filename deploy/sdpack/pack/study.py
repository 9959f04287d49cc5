"""Where the bytes should go: the best mix at each of several budgets, and what was not chosen.

Every budget asks the same candidates, prompts and noise, so each picture is drawn once however many
budgets it serves. Beside the best mix, at each budget these are measured on all the prompts:

    all PRECISION          every part stored alike
    encoder first          the largest text encoder that fits with anything, then the largest
                           denoiser that fits beside it, then the largest decoder; by parameters
    denoiser first         the other way round
    like Stable Diffusion  the mix whose weights are shared out most nearly as the parameters of
                           Stable Diffusion 1.x: 12 % text encoder, 80 % UNet, 8 % VAE

Where such a rule leaves choices open, the mix is taken that promises the best pictures: by its
difference from the best mix on the prompts both drew, or, of one that was screened out, by what the
screening put together on the first prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from sdpack.documents.layout import LEDGER, MANIFEST
from sdpack.documents.record import (
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
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.errors import BrokenPictureError, InfeasibleError, InputError, StoreError
from sdpack.evaluate.rules import BROKEN_SCORE, Fate, Standing
from sdpack.pack.build import buildable, fitting, opened
from sdpack.pack.mixed.propose import Proposals
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.recording import Roster, keep
from sdpack.pack.request import BuildRequest, check
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection, SelectionResult
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.progress import Say
from sdpack.store.artifacts import explain_io, unfinished_name

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


def study(request: BuildRequest, budgets: Sequence[int], say: Say = lambda _: None) -> Studied:
    """Find the best mix at each budget, and keep what was found in the ledger and in a file.

    Args:
        request: its budget is the largest; `out` is a folder for the rows, as a file LEDGER.

    Raises:
        InputError: no budget is given, or the folder is a bundle.
        InfeasibleError: nothing fits even the largest.
        SdpackError: anything else that failed, in one line.
    """
    if not budgets:
        raise InputError("no budgets are given; write them like 8MiB:64MiB:8")
    _check_writable(request.out)
    check(request)
    with opened(request, say) as builder:
        return Study(builder, sorted(set(budgets))).run()


def _check_writable(folder: Path) -> None:
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder} is a bundle; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / unfinished_name(LEDGER)).write_text("")
        (folder / unfinished_name(LEDGER)).unlink()
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause


@dataclass
class Budget:
    """One budget whose race is over."""

    budget_bytes: int
    evaluator: MixEvaluator
    selected: SelectionResult

    @cached_property
    def worth(self) -> Mapping[Mix, float]:
        """What each mix promises: how much better than the best mix it draws, or would."""
        fitted, screened = self.evaluator.fitted, self.selected.screened
        raced = {fitted[s.arm].mix: s for s in self.selected.outcome.standings}
        found: dict[Mix, float] = {}
        if screened is not None:
            level = screened.common[self.selected.outcome.winner]
            for each, common in zip(fitted, screened.common, strict=True):
                broken = common <= BROKEN_SCORE
                found[each.mix] = -math.inf if broken else float(common - level)
        for mix, standing in raced.items():
            broken = standing.fate is Fate.BROKEN
            found[mix] = -math.inf if broken else standing.difference
        return found

    @property
    def best(self) -> Fitted:
        return self.evaluator.fitted[self.selected.outcome.winner]

    @property
    def level(self) -> list[Mix]:
        """The best mix, and those that raced and cannot be told from it, or are as good."""
        indifference = self.evaluator.rules.indifference

        def is_level(standing: Standing) -> bool:
            if standing.fate in (Fate.SAME, Fate.NO_BETTER):  # than another, which may be worse
                return standing.high >= 0 and standing.difference > -indifference
            return standing.fate in (Fate.WON, Fate.OPEN)

        found = [s for s in self.selected.outcome.standings if is_level(s)]
        return [self.evaluator.fitted[s.arm].mix for s in found]

    def promising(self, fitted: Iterable[Fitted]) -> Fitted | None:
        """The one that promises most, the smaller of equals; none if all draw broken pictures."""
        working = [each for each in fitted if self.worth[each.mix] > -math.inf]
        return min(working, key=lambda f: (-self.worth[f.mix], f.size_bytes, f.mix), default=None)


@dataclass
class Figures:
    """What was found for one budget, until mixes have names."""

    budget_bytes: int
    infeasible: str | None = None
    fitting: int = 0
    runs: list[tuple[str, Fitted]] = field(default_factory=list)
    level: list[Mix] = field(default_factory=list)
    by_encoder: list[tuple[str, Fitted]] = field(default_factory=list)
    broken: list[tuple[str, Mix]] = field(default_factory=list)

    def document(self, names: Mapping[Mix, str]) -> BudgetFigures:
        """As the ledger keeps it."""

        def runs(found: Iterable[tuple[str, Fitted]]) -> tuple[Run, ...]:
            return tuple(
                Run(
                    why=why,
                    mix=names[fitted.mix],
                    placement=fitted.placement,
                    peak_bytes=fitted.peak.bytes,
                )
                for why, fitted in found
            )

        return BudgetFigures(
            budget_bytes=self.budget_bytes,
            infeasible=self.infeasible,
            fitting=self.fitting,
            runs=runs(self.runs),
            level=tuple(names[mix] for mix in self.level),
            by_encoder=runs(self.by_encoder),
            broken=tuple(f"{why}: {mix}" for why, mix in self.broken),
        )


@dataclass
class Study:
    """Asks one builder about several budgets."""

    builder: VariantBuilder
    budgets: Sequence[int]
    _drawn: dict[Mix, int] = field(default_factory=dict, init=False)
    _fitted: dict[Mix, Fitted] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.footprints = Footprints(self.builder)

    def run(self) -> Studied:
        """All of it."""
        possible = buildable(self.builder)
        found: list[Figures] = []
        settled: dict[int, Budget] = {}
        last: MixEvaluator | None = None
        for number, budget in enumerate(self.budgets, 1):
            self.builder.say(f"budget {number} of {len(self.budgets)}")
            try:
                last = self._evaluator(possible, budget, last)
                one = Budget(budget, last, Selection(last).run())
                found.append(self._figures(one))
                settled[budget] = one
            except (InfeasibleError, BrokenPictureError) as error:
                if budget == self.budgets[-1] and not settled:
                    raise
                found.append(Figures(budget, str(error)))
        assert last is not None
        for place in _spread(len(settled), FIXED):
            budget = list(settled)[place]
            figures = next(each for each in found if each.budget_bytes == budget)
            self._by_encoder(settled[budget], figures)
        return self._kept(last, found)

    def _kept(self, last: MixEvaluator, found: Sequence[Figures]) -> Studied:
        request = self.builder.request
        roster = Roster(last, self.footprints, self._drawn, self._fitted)
        record = StudyRecord(
            **roster.fields(request.out.resolve().name),
            budgets=tuple(figures.document(roster.names) for figures in found),
        )
        kept = keep(last, STUDY, record, {"budgets": list(self.budgets)})
        path = request.out / LEDGER
        try:
            kept.write(request.out / unfinished_name(LEDGER))
            (request.out / unfinished_name(LEDGER)).replace(path)
        except OSError as cause:
            raise StoreError(explain_io(cause, path)) from cause
        return Studied(record, last.runner.drawn, len(last.fitted) * last.rules.most)

    def _evaluator(
        self, possible: Sequence[Mix], budget: int, last: MixEvaluator | None
    ) -> MixEvaluator:
        mixed = list(Proposals(self.footprints, possible, budget).mixes())
        fitted = fitting(self.footprints, [*possible, *mixed], budget)
        runner = None if last is None else last.runner
        return MixEvaluator(self.builder, [*possible, *mixed], fitted, self.builder.say, runner)

    def _figures(self, budget: Budget) -> Figures:
        found = Figures(budget.budget_bytes, fitting=len(budget.evaluator.fitted))
        by_mix = {fitted.mix: fitted for fitted in budget.evaluator.fitted}
        level = sorted((by_mix[mix] for mix in budget.level), key=lambda f: (f.size_bytes, f.mix))
        next_best = [fitted for fitted in level if fitted is not budget.best]
        for fitted in (budget.best, *next_best):
            if self._measured(budget, BEST, fitted, found):
                found.runs.append((BEST, fitted))
                break
        else:
            raise BrokenPictureError(f"the best mix, {budget.best.mix}, draws a broken picture")
        for why, pick in self._rules():
            picked = pick(budget)
            if picked is not None and self._measured(budget, why, picked, found):
                found.runs.append((why, picked))
        spoiled = {mix for _, mix in found.broken}
        found.level = [fitted.mix for fitted in level if fitted.mix not in spoiled]
        for mix in found.level:
            self._note(budget, by_mix[mix])
        return found

    def _measured(self, budget: Budget, why: str, fitted: Fitted, found: Figures) -> bool:
        """Whether a mix, measured on all the prompts, draws no broken picture."""
        every = range(budget.evaluator.rules.most)
        if (budget.evaluator.scores([fitted.mix], every) <= BROKEN_SCORE).any():
            found.broken.append((why, fitted.mix))
            return False
        self._note(budget, fitted)
        return True

    def _note(self, budget: Budget, fitted: Fitted) -> None:
        seen = budget.evaluator.drawn.get(fitted.mix, 0)
        self._drawn[fitted.mix] = max(seen, self._drawn.get(fitted.mix, 0))
        self._fitted.setdefault(fitted.mix, fitted)

    def _rules(self) -> Iterator[tuple[str, Pick]]:
        for precision in self.builder.request.precisions:
            yield f"all {precision}", partial(self._all_in, precision)
        yield ENCODER_FIRST, lambda budget: self._first(budget, _ENCODER_FIRST)
        yield DENOISER_FIRST, lambda budget: self._first(budget, _DENOISER_FIRST)
        yield LIKE_STABLE_DIFFUSION, self._like_stable_diffusion

    def _all_in(self, precision: Precision, budget: Budget) -> Fitted | None:
        every = budget.evaluator.fitted
        return budget.promising(f for f in every if self.builder.is_in(f.mix, precision))

    def _first(self, budget: Budget, request: Sequence[Callable[[Role], bool]]) -> Fitted | None:
        """The candidates with the most parameters, group of roles by group."""
        left = list(budget.evaluator.fitted)
        for is_one in request:
            sizes = [self._parameters(each.mix, is_one) for each in left]
            most = max(sizes)
            left = [each for each, size in zip(left, sizes, strict=True) if size == most]
        return budget.promising(left)

    def _parameters(self, mix: Mix, is_one: Callable[[Role], bool]) -> int:
        return sum(
            self.builder.checkpoint(v.role, v.candidate).parameters
            for v in mix.variants
            if is_one(v.role)
        )

    def _like_stable_diffusion(self, budget: Budget) -> Fitted | None:
        apart = {each.mix: self._apart(each) for each in budget.evaluator.fitted}
        least = min(apart.values())
        return budget.promising(f for f in budget.evaluator.fitted if apart[f.mix] <= least + NEAR)

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

    def _by_encoder(self, budget: Budget, found: Figures) -> None:
        """Of each variant of each text encoder the most promising mix, measured."""
        groups: dict[str, list[Fitted]] = {}
        for fitted in budget.evaluator.fitted:
            encoders = [variant for variant in fitted.mix.variants if variant.role.encodes_text]
            for variant in encoders:
                if variant.precision is not Precision.MIXED:
                    which = f"{variant.role.words} " if len(encoders) > 1 else ""
                    groups.setdefault(f"{which}{variant}", []).append(fitted)
        for why, group in sorted(groups.items()):
            chosen = budget.promising(group)
            if chosen is not None and self._measured(budget, why, chosen, found):
                found.by_encoder.append((why, chosen))


def _is_encoder(role: Role) -> bool:
    return role.encodes_text


def _is_denoiser(role: Role) -> bool:
    return role is Role.DENOISER


def _is_decoder(role: Role) -> bool:
    return role is Role.DECODER


_ENCODER_FIRST = (_is_encoder, _is_denoiser, _is_decoder)
_DENOISER_FIRST = (_is_denoiser, _is_encoder, _is_decoder)


def _spread(count: int, most: int) -> list[int]:
    """At most so many places, from the first to the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
