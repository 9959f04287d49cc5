"""One budget of a study whose race is over."""

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
    """One budget whose race is over."""

    budget_bytes: int
    selected: SelectionResult

    @cached_property
    def worth(self) -> Mapping[Mix, float]:
        """The score of each mix, less the best mix's, as far as it is known.

        That is the difference on the prompts both drew, or, for a mix that was screened out, what
        the screening predicted on the first prompts; -inf if it draws broken images.
        """
        fitted, screened = self.fitted, self.selected.screened
        raced = {fitted[s.arm].mix: s for s in self.selected.race.standings}
        found: dict[Mix, float] = {}
        if screened is not None:
            level = screened.common[self.selected.race.winner]
            for each, common in zip(fitted, screened.common, strict=True):
                broken = common <= BROKEN_SCORE
                found[each.mix] = -math.inf if broken else float(common - level)
        for mix, standing in raced.items():
            broken = standing.outcome is Outcome.BROKEN
            found[mix] = -math.inf if broken else standing.difference
        return found

    @property
    def fitted(self) -> tuple[Fitted, ...]:
        """The mixes that fit it."""
        return self.selected.fitted

    @property
    def best(self) -> Fitted:
        """The winner of its race."""
        return self.selected.winner

    @property
    def level(self) -> list[Mix]:
        """The best mix, and those that raced and were not shown to be worse."""
        indifference = self.selected.rules.indifference

        def is_level(standing: Standing) -> bool:
            if standing.outcome in (
                Outcome.SAME,
                Outcome.NO_BETTER,
            ):  # than another, which may be worse
                return standing.high >= 0 and standing.difference > -indifference
            return standing.outcome in (Outcome.WON, Outcome.OPEN)

        found = [s for s in self.selected.race.standings if is_level(s)]
        return [self.fitted[s.arm].mix for s in found]

    def promising(self, fitted: Iterable[Fitted]) -> Fitted | None:
        """The mix worth most, the smaller of equals; None if all draw broken images."""
        working = [each for each in fitted if self.worth[each.mix] > -math.inf]
        return min(working, key=lambda f: (-self.worth[f.mix], f.size_bytes, f.mix), default=None)
