"""The race of one budget of a study, and the scores of the mixes that fit it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from sdpack.evaluate.rules import BROKEN_SCORE, Outcome, Standing
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.selection import SelectionResult


@dataclass(frozen=True)
class Budget:
    """One budget of a study, after its race."""

    budget_bytes: int
    selected: SelectionResult

    @cached_property
    def worth(self) -> Mapping[Mix, float]:
        """The known or predicted score of each mix, minus that of the best mix.

        For a mix that raced, it is the difference over the prompts that both drew. For a mix that
        was screened out, it is the predicted difference over the prompts of the first round. It is
        -inf for a mix that draws broken images, or images that look unlike fp32.
        """
        selected, fitted, screened = self.selected, self.fitted, self.selected.screened
        raced = {fitted[s.arm].mix: s for s in selected.standings}
        worth: dict[Mix, float] = {}
        if screened is not None:
            level = screened.common[selected.race.winner]
            for each, common in zip(fitted, screened.common, strict=True):
                broken = common <= BROKEN_SCORE
                worth[each.mix] = -math.inf if broken else float(common - level)
        for mix, standing in raced.items():
            broken = standing.outcome in (Outcome.BROKEN, Outcome.UNLIKE)
            worth[mix] = -math.inf if broken else standing.difference
        return worth

    @property
    def fitted(self) -> tuple[Fitted, ...]:
        """The mixes that fit the budget."""
        return self.selected.fitted

    @property
    def best(self) -> Fitted:
        """The winner of the race."""
        return self.selected.winner

    @property
    def level(self) -> list[Mix]:
        """The best mix, and the mixes that raced and were not found to be worse."""
        rules = self.selected.rules

        def is_level(standing: Standing) -> bool:
            # A mix is the same as, or no better than, another one, which may itself be worse.
            if standing.outcome in (Outcome.SAME, Outcome.NO_BETTER):
                return standing.high >= 0 and standing.difference > -rules.indifference
            return standing.outcome in (Outcome.WON, Outcome.OPEN)

        level = [s for s in self.selected.standings if is_level(s)]
        return [self.fitted[s.arm].mix for s in level]

    def promising(self, fitted: Iterable[Fitted]) -> Fitted | None:
        """The mix worth most; among equals, the smaller. None if all draw broken images."""
        working = [each for each in fitted if self.worth[each.mix] > -math.inf]
        return min(working, key=lambda f: (-self.worth[f.mix], f.size_bytes, f.mix), default=None)
