"""The best mix that can be found in a given time.

    waves     a uniform mix of each set of parts, likely winners first, in the widest precision that
              fits; after each, all that were drawn race on the prompts of the first round
    rounds    these mixes race on a few more rounds of prompts
    uniform   all precisions: the usual screening and race
    mixed     mixed variants as well, where they can gain something

The result of the last complete step is the choice when the time is up. A race that is interrupted
ends with the rounds it has completed. Whatever was made stays in the store and the ledger, so that
another build continues from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sdpack.documents.catalog import Mixable
from sdpack.documents.evidence import TimeLimit
from sdpack.errors import (
    BrokenPictureError,
    InfeasibleError,
    TooSlowError,
    UnsupportedGraphError,
)
from sdpack.pack.anytime.deadline import Deadline
from sdpack.pack.anytime.likely import LikelyMixes
from sdpack.pack.latency.select import Selected, select
from sdpack.pack.mixed.propose import Proposals
from sdpack.pack.parallel.graphs import prepare_graphs
from sdpack.pack.planning.feasible import buildable, fitting
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.samples import Samples
from sdpack.pack.toolchain import Toolchain
from sdpack.progress import TimeIsUp
from sdpack.units import format_duration

ROUNDS_FIRST = 4  # times the prompts of the first round, before other precisions are made
SETS, PRECISIONS, MIXED, ROUNDS = (
    "sets of parts",
    "other precisions",
    "mixed variants",
    "rounds of the race",
)


def choose(toolchain: Toolchain, footprints: Footprints) -> Selected:
    """Choose among all mixes that can be built, uniform and mixed.

    Raises:
        InfeasibleError: no mix fits.
        TooSlowError: every mix that fits takes too long for an image.
    """
    uniform = buildable(toolchain)
    return _chosen(toolchain, footprints, uniform, _mixed(toolchain, footprints, uniform))


def _mixed(toolchain: Toolchain, footprints: Footprints, uniform: Sequence[Mix]) -> list[Mix]:
    budget = toolchain.request.budget
    return list(Proposals(toolchain, footprints, uniform, budget).mixes())


def _chosen(
    toolchain: Toolchain, footprints: Footprints, uniform: Sequence[Mix], mixed: Sequence[Mix]
) -> Selected:
    possible, budget = [*uniform, *mixed], toolchain.request.budget
    fitted = fitting(toolchain.candidates.placements, footprints, possible, budget)
    return select(toolchain, possible, fitted)


@dataclass
class TimedChoice:
    """Chooses a mix within a time limit."""

    toolchain: Toolchain
    footprints: Footprints
    deadline: Deadline
    _best: Selected | None = field(default=None, init=False)
    _considered: list[Fitted] = field(default_factory=list, init=False)
    _left_out: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        context = self.toolchain.context
        self._say = context.say
        self._request = self.toolchain.request

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
        best = self._best
        assert best is not None
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
        uniform = buildable(self.toolchain, also_calibrated=True)
        self._take(_chosen(self.toolchain, self.footprints, uniform, ()), [MIXED])
        mixed = _mixed(self.toolchain, self.footprints, uniform)
        if mixed:
            self._take(_chosen(self.toolchain, self.footprints, uniform, mixed), [])
        self._left_out = []

    def _take(self, selected: Selected, left_out: Sequence[str]) -> None:
        """Take a selection as the best so far.

        Raises:
            TimeIsUp: it was interrupted.
        """
        self._best, self._left_out = selected, list(left_out)
        if selected.is_cut:
            self._left_out.append(ROUNDS)
        if self.deadline.is_up:
            raise TimeIsUp

    def _wave(self, likely: LikelyMixes, parts: Mixable) -> None:
        """Draw the first round of prompts with a set of parts, and race it against the others."""
        fitted = self._widest_fitting(likely, parts)
        if fitted is None:
            return
        considered = [*self._considered, fitted]
        began, before = self.deadline.now(), self._drawn
        try:
            self._race(considered, rounds=1)
        except (BrokenPictureError, TooSlowError) as error:
            self._say(f"left out: {error}")
            return
        self._considered = considered
        self._reserve(self.deadline.now() - began, self._drawn - before)
        self.deadline.arm()

    def _race(self, considered: Sequence[Fitted], rounds: int) -> None:
        """Race some mixes on as many prompts as the first round has, or several times as many.

        Raises:
            TimeIsUp: the time is up; the race's rounds until then count.
        """
        rules = self._request.rules
        few = replace(rules, most=min(rounds * rules.first, rules.most))
        runner = None if self._best is None else self._best.runner
        possible = [fitted.mix for fitted in considered]
        self._best = select(self.toolchain, possible, considered, runner, few)
        if self.deadline.is_up:
            raise TimeIsUp

    @property
    def _drawn(self) -> int:
        """The number of images drawn so far."""
        if self._best is None:
            return 0
        runner = self._best.runner
        return runner.drawn

    def _reserve(self, seconds: float, images: int) -> None:
        """Keep time for the samples, by the time that so many images took."""
        if images and self._best is not None:
            self.deadline.reserve(seconds / images * len(Samples(self._best.evaluator).prompts))

    def _widest_fitting(self, likely: LikelyMixes, parts: Mixable) -> Fitted | None:
        """The first mix of a set that can be built and fits; None if none does."""
        toolchain = self.toolchain
        placements, budget = toolchain.candidates.placements, self._request.budget
        for mix in likely.of(parts):
            try:
                prepare_graphs(toolchain, mix.variants)
                toolchain.variants.prepare(mix.variants)
                return fitting(placements, self.footprints, [mix], budget)[0]
            except (InfeasibleError, UnsupportedGraphError):
                continue
        return None
