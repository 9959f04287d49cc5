"""The choice of a mix among the sets of parts that can still win.

It begins with the sets that the best one does not beat in fp32. That one may not fit, or not in a
precision that is good enough. So the sets that the winner does not beat are added, until there are
none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sdpack.domain.arrays import Float64Array
from sdpack.errors import (
    BrokenPictureError,
    EngineError,
    InfeasibleError,
    TooSlowError,
    UnsupportedGraphError,
)
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.latency.select import Selected, SelectionSettings, select
from sdpack.pack.parallel.graphs import prepare_exports
from sdpack.pack.planning.mix import Mix, PartSet
from sdpack.pack.preselection.candidate_sets import count_of_sets, sets_in_fp32
from sdpack.pack.preselection.mixes_of_sets import MixesOfSets
from sdpack.pack.preselection.preselect import ROUNDS, Preselected, Preselection
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.toolchain import Toolchain
from sdpack.progress import Say

REFUSALS = (InfeasibleError, TooSlowError, BrokenPictureError, UnsupportedGraphError)

Among = Callable[[Sequence[PartSet]], Selected]
"""Selects a mix of some sets of parts."""


@dataclass(frozen=True)
class SetChoice:
    """Chooses a mix for a request."""

    mixes: MixesOfSets

    def choose(self) -> Selected:
        """Choose the best mix that fits and, if the request limits the time, is fast enough.

        Raises:
            InfeasibleError: no mix fits.
            TooSlowError: every mix that fits takes too long for an image.
        """
        toolchain = self.mixes.toolchain
        evaluator = MixEvaluator(toolchain, (), ())
        sets = sets_in_fp32(toolchain.candidates)
        preselection = preselect(toolchain, evaluator, sets)
        runner = evaluator.runner
        try:
            if preselection is None:
                return self._among(runner, list(sets) or None)
            among, context = partial(self._among, runner), toolchain.context
            return choose_set_by_set(preselection, among, context.say)
        except InfeasibleError:
            if len(sets) == count_of_sets(toolchain.candidates):
                raise
            return self._among(runner, None)  # names the smallest mix of all sets

    def _among(self, runner: EvaluationRunner, sets: Sequence[PartSet] | None) -> Selected:
        uniform = self.mixes.uniform(sets)
        possible = [*uniform, *self.mixes.mixed(uniform)]
        settings = SelectionSettings(runner, tells_time=True)
        return select(self.mixes.toolchain, possible, self.mixes.fitting(possible), settings)


def choose_set_by_set(
    preselection: Preselection, among: Among, say: Say = lambda _: None
) -> Selected:
    """Choose a mix of the sets that can still win.

    Raises:
        InfeasibleError, TooSlowError, BrokenPictureError, UnsupportedGraphError: what `among`
            raised for all sets together.
    """
    kept, more = list[PartSet](), preselection.unbeaten(preselection.sets)
    chosen: Selected | None = None
    while True:
        kept += more
        rest = [parts for parts in preselection.sets if parts not in kept]
        try:
            chosen = among(kept)
        except REFUSALS as error:
            if chosen is not None:
                say(f"the sets of parts that were added last cannot be built: {error}")
                return with_preselection(chosen, preselection, kept)
            if not rest:
                raise
            more = preselection.unbeaten(rest)
        else:
            more = preselection.rivals(rest, winner_scores(chosen))
            if not more:
                return with_preselection(chosen, preselection, kept)


def preselect(
    toolchain: Toolchain, evaluator: MixEvaluator, sets: Mapping[PartSet, Mix]
) -> Preselection | None:
    """Draw sets of parts in fp32.

    None if there is only one; without a judge, as images are then compared with those of the same
    parts in fp32, which says nothing about sets; and if a set does not run in fp32 where images are
    drawn, for example because it does not fit on the GPU.
    """
    judging, say = evaluator.judging, toolchain.context.say
    if len(sets) < 2 or not judging.is_judged:
        return None
    prepare_exports(toolchain, [variant for mix in sets.values() for variant in mix.variants])

    def draw(parts: Sequence[PartSet], numbers: Sequence[int]) -> Float64Array:
        return evaluator.scores_in_fp32([sets[each] for each in parts], numbers)

    preselection = Preselection(list(sets), draw, evaluator.rules)
    try:
        preselection.run(1 if evaluator.is_large else ROUNDS)
    except EngineError as error:
        say(f"all sets of parts are kept, as they cannot be compared in fp32: {error}")
        return None
    left = len(preselection.unbeaten(preselection.sets))
    say(f"{left} of {len(sets)} sets of parts are near the best in fp32")
    return preselection


def with_preselection(
    chosen: Selected, preselection: Preselection, kept: Sequence[PartSet]
) -> Selected:
    """A selection, and what was left out before it."""
    beaten = preselection.beaten(kept, winner_scores(chosen))
    preselected = Preselected(len(preselection.sets), tuple(beaten), preselection.pictures)
    return replace(chosen, result=replace(chosen.result, preselected=preselected))


def winner_scores(chosen: Selected) -> Float64Array:
    """The scores of a selection's winner on the prompts it has drawn: float64 (prompts,)."""
    evaluator, winner = chosen.evaluator, chosen.result.winner
    return evaluator.scores_of(winner.mix, evaluator.drawn[winner.mix])
