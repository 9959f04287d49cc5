"""The best mix that can be found in a given time.

    waves     a uniform mix of each set of parts, likely winners first, in the widest precision that
              fits; after each, all that were drawn race on the prompts of the first round
    rounds    these mixes race on a few more rounds of prompts
    uniform   all precisions of the sets that the winner does not beat in fp32: the usual screening
              and race
    mixed     mixed variants as well, where they can gain something

The result of the last complete step is the choice when the time is up. A race that is interrupted
ends with the rounds it has completed. Whatever was made stays in the store and the ledger, so that
another build continues from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sdpack.documents.catalog import Mixable
from sdpack.documents.evidence import TimeLimit
from sdpack.errors import (
    BrokenPictureError,
    InfeasibleError,
    TooSlowError,
    UnsupportedGraphError,
)
from sdpack.evaluate.rules import Rules
from sdpack.pack.anytime.deadline import Deadline
from sdpack.pack.anytime.likely import LikelyMixes
from sdpack.pack.latency.latencies import Latencies
from sdpack.pack.latency.select import Selected, SelectionSettings, select
from sdpack.pack.parallel.graphs import prepare_graphs
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, PartSet
from sdpack.pack.preselection.candidate_sets import sets_in_fp32
from sdpack.pack.preselection.choose import preselect, winner_scores, with_preselection
from sdpack.pack.preselection.mixes_of_sets import MixesOfSets
from sdpack.pack.preselection.preselect import Preselection
from sdpack.pack.selection.measurements import TIMED_PICTURES
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.samples import Samples
from sdpack.progress import TimeIsUp
from sdpack.units import format_duration

ROUNDS_FIRST = 4  # times the prompts of the first round, before other precisions are made
SETS, PRECISIONS, MIXED, ROUNDS = (
    "sets of parts",
    "other precisions",
    "mixed variants",
    "rounds of the race",
)


@dataclass
class TimedChoice:
    """Chooses a mix within a time limit."""

    mixes: MixesOfSets
    deadline: Deadline
    _best: Selected | None = field(default=None, init=False)
    _considered: list[Fitted] = field(default_factory=list, init=False)
    _left_out: list[str] = field(default_factory=list, init=False)
    _preselection: Preselection | None = field(default=None, init=False)
    _kept: Sequence[PartSet] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.toolchain = self.mixes.toolchain
        context = self.toolchain.context
        self._say = context.say
        self._request = self.toolchain.request
        limit_s = self._request.latency_limit_s
        self._latencies = None if limit_s is None else Latencies.of_toolchain(self.toolchain)

    def choose(self) -> Selected:
        """Choose the best mix that can be found in time, or the first one if that takes longer.

        Raises:
            InfeasibleError: no mix fits.
            TooSlowError: every mix that fits takes too long for an image.
        """
        try:
            self._try_everything()
        except TimeIsUp:
            self._say(f"the time is up: {format_duration(self.deadline.limit_s)}")
        finally:
            self.deadline.disarm()
        best = self._best
        assert best is not None
        if self._preselection is not None and self._is_of_kept(best):
            best = with_preselection(best, self._preselection, self._kept or ())
        limit = TimeLimit(
            seconds=self.deadline.limit_s,
            is_complete=not self._left_out,
            left_out=tuple(self._left_out),
        )
        return replace(best, result=replace(best.result, time_limit=limit))

    def _try_everything(self) -> None:
        """Run the steps; what is left of them stays in `_left_out` if one is interrupted."""
        likely = LikelyMixes(self.toolchain.candidates)
        sets = likely.sets()
        for place, parts in enumerate(sets):
            self._left_out = [f"{len(sets) - place} of {len(sets)} {SETS}", PRECISIONS, MIXED]
            self._wave(likely, parts)
        self._left_out = [PRECISIONS, MIXED]
        if len(self._considered) > 1:
            self._race(self._considered, ROUNDS_FIRST)
        self._preselect()
        refusal: InfeasibleError | TooSlowError | None = None
        while True:
            refusal = self._try_precisions() or refusal
            if not self._rivals_added():
                break
        if refusal is not None and self._best is None:
            raise refusal
        self._left_out = []

    def _try_precisions(self) -> InfeasibleError | TooSlowError | None:
        """Select among all precisions of the sets that are kept, then with mixed variants as well.

        Returns:
            why no uniform mix can be chosen; mixed variants can be smaller, and faster.
        """
        self._left_out = [PRECISIONS, MIXED]
        uniform = self.mixes.uniform(self._kept, also_calibrated=True)
        refusal: InfeasibleError | TooSlowError | None = None
        try:
            self._select(uniform, [MIXED])
        except (InfeasibleError, TooSlowError) as error:
            refusal = error
        mixed = self.mixes.mixed(uniform)
        if mixed:
            self._select([*uniform, *mixed], [])
        return refusal

    def _preselect(self) -> None:
        """Keep the sets that the best mix does not beat in fp32; all if there is no mix yet."""
        best = self._best
        if best is None:
            return
        evaluator = MixEvaluator(self.toolchain, (), (), best.runner)
        sets = sets_in_fp32(self.toolchain.candidates)
        self._preselection = preselect(self.toolchain, evaluator, sets)
        if self._preselection is not None:
            winner = best.winner
            rivals = self._preselection.rivals(sets, winner_scores(best))
            self._kept = list(dict.fromkeys([winner.mix.part_set, *rivals]))
        self._check()

    def _is_of_kept(self, selected: Selected) -> bool:
        """Whether only mixes of the sets that are kept took part in a selection."""
        kept, result = self._kept or (), selected.result
        return all(fitted.mix.part_set in kept for fitted in result.fitted)

    def _rivals_added(self) -> bool:
        """Keep the sets that the winner does not beat after all; whether there are any."""
        if self._preselection is None or self._kept is None or self._best is None:
            return False
        rest = [parts for parts in self._preselection.sets if parts not in self._kept]
        more = self._preselection.rivals(rest, winner_scores(self._best))
        self._kept = [*self._kept, *more]
        return bool(more)

    def _select(self, possible: Sequence[Mix], left_out: Sequence[str]) -> None:
        """Select one of these mixes by the request's rules.

        Args:
            left_out: what is left to do afterwards.

        Raises:
            TimeIsUp: the time is up; the race's rounds until then count.
        """
        fitted = self.mixes.fitting(possible)
        self._take(self._selected(possible, fitted, self._request.rules))
        self._left_out = list(left_out)
        if self._best is not None and self._best.is_cut:
            self._left_out.append(ROUNDS)
        self._check()

    def _selected(
        self, possible: Sequence[Mix], fitted: Sequence[Fitted], rules: Rules
    ) -> Selected:
        runner = None if self._best is None else self._best.runner
        settings = SelectionSettings(runner, rules, self._latencies)
        return select(self.toolchain, possible, fitted, settings)

    def _take(self, selected: Selected) -> None:
        """Take a selection as the best so far; from the first one on, the time counts."""
        self._best = selected
        self.deadline.arm()

    def _check(self) -> None:
        if self.deadline.is_up:
            raise TimeIsUp

    def _wave(self, likely: LikelyMixes, parts: Mixable) -> None:
        """Draw the first round of prompts with a set of parts, and race it against the others."""
        for fitted in self._fitting_mixes(likely, parts):
            considered = [*self._considered, fitted]
            began, before = self.deadline.now(), self._drawn
            try:
                self._race(considered, rounds=1)
            except (BrokenPictureError, TooSlowError) as error:
                self._say(f"left out: {error}")
                continue
            self._considered = considered
            self._reserve(self.deadline.now() - began, self._drawn - before)
            return

    def _race(self, considered: Sequence[Fitted], rounds: int) -> None:
        """Race some mixes on as many prompts as the first round has, or several times as many.

        Raises:
            TimeIsUp: the time is up; the race's rounds until then count.
        """
        rules = self._request.rules
        few = replace(rules, most=min(rounds * rules.first, rules.most))
        self._take(self._selected([fitted.mix for fitted in considered], considered, few))
        self._check()

    @property
    def _drawn(self) -> int:
        """The number of images drawn so far."""
        if self._best is None:
            return 0
        runner = self._best.runner
        return runner.drawn

    def _reserve(self, seconds: float, images: int) -> None:
        """Keep time for the images of the bundle, by the time that so many images took."""
        if images and self._best is not None:
            count = len(Samples(self._best.evaluator).prompts) + 1 + TIMED_PICTURES
            self.deadline.reserve(seconds / images * count)

    def _fitting_mixes(self, likely: LikelyMixes, parts: Mixable) -> Iterator[Fitted]:
        """The mixes of a set that can be built, fit and are fast enough, likely winners first."""
        limit_s, latencies = self._request.latency_limit_s, self._latencies
        for mix in likely.of(parts):
            try:
                prepare_graphs(self.toolchain, mix.variants)
                variants = self.toolchain.variants
                variants.prepare(mix.variants)
                (fitted,) = self.mixes.fitting([mix])
                if limit_s is not None and latencies is not None:
                    (fitted,) = latencies.within([fitted], limit_s)
            except InfeasibleError:
                continue
            except (TooSlowError, UnsupportedGraphError) as error:
                self._say(f"left out: {error}")
                continue
            yield fitted
