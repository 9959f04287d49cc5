"""Replays of a selection on resampled prompts, from scores that were drawn once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from sdpack.domain.arrays import Float64Array
from sdpack.errors import InfeasibleError
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import Rules
from sdpack.pack.latency.select import Selected
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, PartSet
from sdpack.pack.preselection.choose import choose_set_by_set
from sdpack.pack.preselection.preselect import Preselection
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection


@dataclass(frozen=True)
class ScoreTable:
    """The scores on all prompts of every mix that fits a budget, and of sets of parts in fp32.

    Attributes:
        mixes: the scores of each mix, float64 (prompts,).
        sets: the scores of each set of parts in fp32, float64 (prompts,), the preferred first.
    """

    evaluator: MixEvaluator
    mixes: Mapping[Mix, Float64Array]
    sets: Mapping[PartSet, Float64Array]

    @property
    def prompts(self) -> int:
        """The number of prompts."""
        rules = self.evaluator.rules
        return rules.most

    @property
    def fitted(self) -> list[Fitted]:
        """The mixes that fit."""
        return list(self.evaluator.fitted)

    def rows(self, mixes: Sequence[Mix]) -> Float64Array:
        """The scores of these mixes: float64 (mixes, prompts)."""
        return np.array([self.mixes[mix] for mix in mixes])


class ReplayedEvaluator:
    """Evaluates mixes on resampled prompts of a table, in the place of a `MixEvaluator`.

    Args:
        sets: the sets of parts whose mixes take part.
        prompts: the numbers of the resampled prompts.
    """

    has_real_images = False

    def __init__(self, table: ScoreTable, sets: Sequence[PartSet], prompts: Sequence[int]) -> None:
        self._table = table
        self._prompts = np.asarray(prompts)
        evaluator = table.evaluator
        self.fitted = [each for each in evaluator.fitted if each.mix.part_set in sets]
        self.possible = [mix for mix in table.mixes if mix.part_set in sets]
        self.is_large, self.request = evaluator.is_large, evaluator.request
        self.weight_bytes = evaluator.weight_bytes
        self.rules: Rules = replace(evaluator.rules, most=len(prompts))
        self.drawn: dict[Mix, int] = {}

    def say(self, line: str) -> None:
        """Ignore progress."""

    def scores(self, mixes: Sequence[Mix], numbers: Sequence[int]) -> Float64Array:
        """See `MixEvaluator.scores`."""
        for mix in mixes:
            self.drawn[mix] = max(self.drawn.get(mix, 0), max(numbers, default=-1) + 1)
        return self._table.rows(mixes)[:, self._prompts[list(numbers)]]

    def scores_of(self, mix: Mix, prompts: int) -> Float64Array:
        """See `MixEvaluator.scores_of`."""
        row: Float64Array = self._table.rows([mix])[0, self._prompts[:prompts]]
        return row


@dataclass(frozen=True)
class Replay:
    """One selection on resampled prompts.

    Attributes:
        winner: the mix that it chose.
        images: the number of images it drew.
        is_beaten: whether another mix is better than its winner on the same prompts, by a 95 %
            interval of the difference.
        shortfall: the difference of its winner from the best mix, by the means over all prompts.
        shortfall_exhaustive: the same for the mix with the best mean over the resampled prompts.
    """

    winner: Mix
    images: int
    is_beaten: bool
    shortfall: float
    shortfall_exhaustive: float


def resampled(table: ScoreTable, seed: int) -> list[int]:
    """The numbers of as many prompts as a table has, drawn with replacement."""
    rng = np.random.default_rng(seed)
    return [int(number) for number in rng.integers(table.prompts, size=table.prompts)]


def replay(table: ScoreTable, prompts: Sequence[int]) -> Replay:
    """Choose among the sets of parts as a build does, on these prompts of the table.

    A selection is never repeated with more sets here, but counted as if it had been: the images of
    the selections among fewer sets are part of the last one.
    """
    numbers = np.asarray(prompts)

    def draw(sets: Sequence[PartSet], places: Sequence[int]) -> Float64Array:
        return np.array([table.sets[parts][numbers[list(places)]] for parts in sets])

    def among(sets: Sequence[PartSet]) -> Selected:
        evaluator = ReplayedEvaluator(table, sets, prompts)
        if not evaluator.fitted:
            raise InfeasibleError("no mix of these sets fits", 0)
        as_drawn = cast(MixEvaluator, evaluator)
        return Selected(as_drawn, Selection(as_drawn).run())

    rules = replace(table.evaluator.rules, most=len(prompts))
    preselection = Preselection(list(table.sets), draw, rules)
    preselection.run()
    result = choose_set_by_set(preselection, among).result
    mixes = [fitted.mix for fitted in table.fitted]
    scores, winner = table.rows(mixes), mixes.index(result.winner.mix)
    seen, truth = scores[:, numbers], scores.mean(axis=1)
    best = int(seen.mean(axis=1).argmax())
    return Replay(
        result.winner.mix,
        result.pictures + preselection.pictures,
        interval(seen[best] - seen[winner], 0.05)[1] > 0,
        float(truth.max() - truth[winner]),
        float(truth.max() - truth[best]),
    )
