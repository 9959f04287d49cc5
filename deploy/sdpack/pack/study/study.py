"""Where memory is best spent: the best mix at each of several budgets, compared with others.

All budgets share the same candidates, prompts and noise, so each image is drawn once, however many
budgets need it. At each budget, the best mix and these mixes are measured on all prompts:

    all PRECISION          every part at the same precision
    encoder first          the largest text encoder that fits with anything, then the largest
                           denoiser that fits beside it, then the largest decoder; by parameters
    denoiser first         the same, but the denoiser before the text encoder
    like Stable Diffusion  the mix whose weights are shared out most like the parameters of
                           Stable Diffusion 1.x: 12 % text encoder, 80 % UNet, 8 % VAE

Where a rule allows several mixes, the one with the best score is taken (`Budget.worth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdpack.documents.evidence import LatencyLimit
from sdpack.documents.layout import LEDGER, MANIFEST
from sdpack.documents.record import (
    BEST,
    STUDY,
    BudgetFigures,
    Run,
    StudyRecord,
)
from sdpack.domain.precision import Precision
from sdpack.errors import BrokenPictureError, InfeasibleError, InputError, StoreError, TooSlowError
from sdpack.evaluate.rules import BROKEN_SCORE
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.judging.primary_check import check_primary
from sdpack.pack.latency.select import SelectionSettings, select
from sdpack.pack.parallel.local import open_executor
from sdpack.pack.planning.feasible import buildable
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix
from sdpack.pack.preselection.mixes_of_sets import MixesOfSets
from sdpack.pack.recording.kept import keep
from sdpack.pack.recording.roster import Roster
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.study.budget import Budget
from sdpack.pack.study.comparison_rules import ComparisonRules
from sdpack.pack.toolchain import Toolchain, open_toolchain
from sdpack.progress import Say
from sdpack.store.files import explain_io, unfinished_name
from sdpack.workers.executor import USUAL_WORKERS, WorkerOptions

FIXED = 3  # budgets at which every text encoder is measured


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study.

    Attributes:
        pictures: the number of images drawn for it; 0 when it is repeated.
        exhaustive: the number of images needed to draw every mix of the largest budget in full.
    """

    record: StudyRecord
    pictures: int
    exhaustive: int


def study(
    request: BuildRequest,
    budgets: Sequence[int],
    say: Say = lambda _: None,
    workers: WorkerOptions = USUAL_WORKERS,
) -> FinishedStudy:
    """Find the best mix at each budget, and record it in the ledger and in a file.

    Args:
        request: a request with the largest budget; its `out` is the folder for the file LEDGER.
        workers: the worker processes to use.

    Raises:
        InputError: no budget is given, or the folder is a bundle.
        InfeasibleError: nothing fits even the largest budget.
        SdpackError: something else failed, described in one line.
    """
    if not budgets:
        raise InputError("no budgets are given; write them like 8MiB:64MiB:8")
    _check_writable(request.out)
    candidates = Candidates(request)
    check(candidates, say)
    with (
        open_executor(candidates, workers, say) as executor,
        open_toolchain(candidates, say, executor) as toolchain,
    ):
        check_primary(toolchain)
        return Study(toolchain, sorted(set(budgets))).run()


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
class Figures:
    """The results for one budget, with mixes that have no names yet."""

    budget_bytes: int
    infeasible: str | None = None
    fitting: int = 0
    runs: list[tuple[str, Fitted]] = field(default_factory=list)
    level: list[Mix] = field(default_factory=list)
    by_encoder: list[tuple[str, Fitted]] = field(default_factory=list)
    broken: list[tuple[str, Mix]] = field(default_factory=list)

    def document(self, names: Mapping[Mix, str]) -> BudgetFigures:
        """The figures as the ledger keeps them."""

        def runs(measured: Iterable[tuple[str, Fitted]]) -> tuple[Run, ...]:
            return tuple(
                Run(
                    why=why,
                    mix=names[fitted.mix],
                    placement=fitted.placement,
                    peak_bytes=fitted.peak.bytes,
                )
                for why, fitted in measured
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
    """Studies the budgets of one request."""

    toolchain: Toolchain
    budgets: Sequence[int]
    _evaluators: dict[int, MixEvaluator] = field(default_factory=dict, init=False)
    _drawn: dict[Mix, int] = field(default_factory=dict, init=False)
    _fitted: dict[Mix, Fitted] = field(default_factory=dict, init=False)
    _limit: LatencyLimit | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.context = self.toolchain.context
        self.candidates = self.toolchain.candidates
        self.footprints = Footprints.of_toolchain(self.toolchain)
        variants = self.toolchain.variants
        self.comparisons = ComparisonRules(self.candidates, variants, self.footprints)

    def run(self) -> FinishedStudy:
        """Race the mixes at every budget, and record the results."""
        uniform = buildable(self.toolchain)
        results: list[Figures] = []
        raced: dict[int, Budget] = {}
        for number, budget in enumerate(self.budgets, 1):
            self.context.say(f"budget {number} of {len(self.budgets)}")
            try:
                one = self._race(uniform, budget)
                results.append(self._figures(one))
                raced[budget] = one
            except (InfeasibleError, TooSlowError, BrokenPictureError) as error:
                if budget == self.budgets[-1] and not raced:
                    raise
                results.append(Figures(budget, str(error)))
        for place in _spread(len(raced), FIXED):
            budget = list(raced)[place]
            figures = next(each for each in results if each.budget_bytes == budget)
            self._by_encoder(raced[budget], figures)
        return self._recorded(results)

    @property
    def _last(self) -> MixEvaluator | None:
        """The evaluator of the budget that raced last."""
        return self._evaluators[max(self._evaluators)] if self._evaluators else None

    def _race(self, uniform: Sequence[Mix], budget: int) -> Budget:
        mixes = MixesOfSets(self.toolchain, self.footprints, budget)
        possible = [*uniform, *mixes.mixed(uniform)]
        fitted = mixes.fitting(possible)
        runner = None if self._last is None else self._last.runner
        selected = select(self.toolchain, possible, fitted, SelectionSettings(runner))
        self._evaluators[budget] = selected.evaluator
        self._limit = selected.result.limit
        return Budget(budget, selected.result)

    def _recorded(self, results: Sequence[Figures]) -> FinishedStudy:
        last, request = self._last, self.context.request
        assert last is not None
        summary = last.summary_of(self._drawn)
        roster = Roster(self.candidates, self.footprints, summary, self._fitted)
        out = request.out
        record = StudyRecord(
            **roster.fields(out.resolve().name),
            latency_limit=self._limit,
            budgets=tuple(figures.document(roster.names) for figures in results),
        )
        kept = keep(self.context, STUDY, record, {"budgets": list(self.budgets)})
        try:
            kept.write(out / unfinished_name(LEDGER))
            (out / unfinished_name(LEDGER)).replace(out / LEDGER)
        except OSError as cause:
            raise StoreError(explain_io(cause, out / LEDGER)) from cause
        return FinishedStudy(record, last.runner.drawn, len(last.fitted) * last.rules.most)

    def _figures(self, budget: Budget) -> Figures:
        figures = Figures(budget.budget_bytes, fitting=len(budget.fitted))
        by_mix = {fitted.mix: fitted for fitted in budget.fitted}
        level = sorted((by_mix[mix] for mix in budget.level), key=lambda f: (f.size_bytes, f.mix))
        next_best = [fitted for fitted in level if fitted is not budget.best]
        for fitted in (budget.best, *next_best):
            if self._measured(budget, BEST, fitted, figures):
                figures.runs.append((BEST, fitted))
                break
        else:
            raise BrokenPictureError(f"the best mix, {budget.best.mix}, draws a broken image")
        for why, pick in self.comparisons.rules():
            picked = pick(budget)
            if picked is not None and self._measured(budget, why, picked, figures):
                figures.runs.append((why, picked))
        broken = {mix for _, mix in figures.broken}
        figures.level = [fitted.mix for fitted in level if fitted.mix not in broken]
        for mix in figures.level:
            self._note(budget, by_mix[mix])
        return figures

    def _measured(self, budget: Budget, why: str, fitted: Fitted, figures: Figures) -> bool:
        """Measure a mix on all prompts; returns whether it draws no broken image."""
        rules = budget.selected.rules
        evaluator = self._evaluators[budget.budget_bytes]
        if (evaluator.scores([fitted.mix], range(rules.most)) <= BROKEN_SCORE).any():
            figures.broken.append((why, fitted.mix))
            return False
        self._note(budget, fitted)
        return True

    def _note(self, budget: Budget, fitted: Fitted) -> None:
        prompts = self._evaluators[budget.budget_bytes].drawn.get(fitted.mix, 0)
        self._drawn[fitted.mix] = max(prompts, self._drawn.get(fitted.mix, 0))
        self._fitted.setdefault(fitted.mix, fitted)

    def _by_encoder(self, budget: Budget, figures: Figures) -> None:
        """Measure the most promising mix of each variant of each text encoder."""
        groups: dict[str, list[Fitted]] = {}
        for fitted in budget.fitted:
            encoders = [variant for variant in fitted.mix.variants if variant.role.encodes_text]
            for variant in encoders:
                if variant.precision is not Precision.MIXED:
                    which = f"{variant.role.words} " if len(encoders) > 1 else ""
                    groups.setdefault(f"{which}{variant}", []).append(fitted)
        for why, group in sorted(groups.items()):
            chosen = budget.promising(group)
            if chosen is not None and self._measured(budget, why, chosen, figures):
                figures.by_encoder.append((why, chosen))


def _spread(count: int, most: int) -> list[int]:
    """At most `most` places, evenly spaced from the first to the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
