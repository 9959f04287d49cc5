"""Replays of a selection on resampled prompts, from scores that were drawn once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from sdpack.domain.arrays import Float64Array
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import Rules
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection


@dataclass
class ScoreTable:
    """The scores of mixes on all prompts; each mix is drawn when it is first needed."""

    evaluator: MixEvaluator
    _rows: dict[Mix, Float64Array] = field(default_factory=dict, init=False)

    @property
    def prompts(self) -> int:
        """The number of prompts."""
        rules = self.evaluator.rules
        return rules.most

    def rows(self, mixes: Sequence[Mix]) -> Float64Array:
        """The scores of these mixes: float64 (mixes, prompts)."""
        new = [mix for mix in mixes if mix not in self._rows]
        if new:
            drawn = self.evaluator.scores(new, range(self.prompts))
            self._rows |= dict(zip(new, drawn, strict=True))
        return np.array([self._rows[mix] for mix in mixes])


class ReplayedEvaluator:
    """Evaluates mixes on resampled prompts of a table, in the place of a `MixEvaluator`.

    Args:
        prompts: the numbers of the resampled prompts.
    """

    has_real_images = False

    def __init__(self, table: ScoreTable, prompts: Sequence[int]) -> None:
        self._table = table
        self._prompts = np.asarray(prompts)
        evaluator = table.evaluator
        self.fitted, self.possible = evaluator.fitted, evaluator.possible
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
    """One race on resampled prompts.

    Attributes:
        images: the number of images it drew.
        is_beaten: whether another mix is better than its winner on the same prompts, by a 95 %
            interval of the difference.
        shortfall: the difference of its winner from the best mix, by the means over all prompts.
        shortfall_exhaustive: the same for the mix with the best mean over the resampled prompts.
    """

    images: int
    is_beaten: bool
    shortfall: float
    shortfall_exhaustive: float


def replay(table: ScoreTable, seed: int) -> Replay:
    """Run the selection on as many prompts as the table has, drawn with replacement."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(table.prompts, size=table.prompts)
    evaluator = ReplayedEvaluator(table, prompts.tolist())
    selected = Selection(cast(MixEvaluator, evaluator)).run()
    mixes = [fitted.mix for fitted in evaluator.fitted]
    scores, winner = table.rows(mixes), selected.race.winner
    seen, truth = scores[:, prompts], scores.mean(axis=1)
    best = int(seen.mean(axis=1).argmax())
    return Replay(
        selected.pictures,
        interval(seen[best] - seen[winner], 0.05)[1] > 0,
        float(truth.max() - truth[winner]),
        float(truth.max() - truth[best]),
    )
