"""Screening: which of a thousand mixes are worth drawing, told from what each part does alone.

What a part's precision does to the pictures hardly depends on the precision of the other parts. So
each variant is drawn once in place of its counterpart in a reference mix of its denoiser, and the
scores of every other mix are put together, prompt by prompt:

    mix = reference + (with its encoder - reference) + (with its denoiser - reference)
                    + (with its decoder - reference)

How far that is off is measured on some mixes that are drawn in full. What is foretold decides only
who takes part in the race; no figure of a bundle comes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.domain.placement import Role
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import BROKEN_SCORE, Arm, Rules
from sdpack.pack.planning.mix import Mix

Draw = Callable[[Sequence[Mix], Sequence[int]], Float64Array]
"""Mixes and prompts by number to scores, float64 (mixes, prompts)."""


MixClass = tuple[str, tuple[Role, ...]]
"""A denoiser candidate, and the roles that are filled."""


def kind(mix: Mix) -> MixClass:
    """Mixes of one kind differ in one part at a time."""
    return mix.denoiser.candidate, mix.roles


@dataclass(frozen=True)
class ScreeningResult:
    """What came of a screening.

    Attributes:
        left: the numbers of the mixes that go on.
        foretold: every mix's mean score as it was put together, float64 (mixes,).
        common: the same over the prompts of the first round, which all of them have.
        error: the farthest a foretold mean was from the drawn one.
        checked: over how many mixes that was measured.
    """

    left: list[int]
    foretold: Float64Array
    common: Float64Array
    error: float
    checked: int


@dataclass(frozen=True)
class Screener:
    """Screens mixes.

    Attributes:
        references: of each kind of mix, the one its variants are tried in.
        possible: every mix that can be drawn.
    """

    mixes: Sequence[Mix]
    references: Mapping[MixClass, Mix]
    possible: frozenset[Mix]
    draw: Draw

    @cached_property
    def _recipes(self) -> list[dict[Mix, int]]:
        return [self._recipe(mix) for mix in self.mixes]

    def _recipe(self, mix: Mix) -> dict[Mix, int]:
        """The drawn mixes whose scores, so many times each, add up to this one's."""
        reference = self.references[kind(mix)]
        others = [v for v in mix.variants if v != reference.variant(v.role)]
        if len(others) <= 1:
            return {mix: 1}
        changed = [reference.replacing(variant) for variant in others]
        if not self.possible.issuperset(changed):
            return {mix: 1}
        return {**dict.fromkeys(changed, 1), reference: 1 - len(others)}

    def scores(self, numbers: Sequence[int], prompts: Sequence[int]) -> Float64Array:
        """Foretold scores of these mixes: float64 (mixes, prompts)."""
        recipes = [self._recipes[number] for number in numbers]
        drawn = list(dict.fromkeys(mix for recipe in recipes for mix in recipe))
        scores = dict(zip(drawn, self.draw(drawn, prompts), strict=True))
        return np.array([_put_together(recipe, scores) for recipe in recipes])

    def run(self, arms: Sequence[Arm], rules: Rules, few: int) -> ScreeningResult:
        """Narrow the mixes, whose arms these are, to at most `few`; half as many are checked."""
        first = range(min(rules.first, rules.most))
        foretold = self.scores(range(len(self.mixes)), first).mean(axis=1)
        checked = self._to_check(foretold, few // 2)
        seen = self.draw([self.mixes[number] for number in checked], first).mean(axis=1)
        error = float(np.abs(seen - foretold[checked]).max(initial=0.0))
        preferred = few // 2 if rules.prefer.takes_open else few // 4
        left, means = Race(arms, self.scores, rules, slack=error).narrow(few, preferred)
        return ScreeningResult(left, means, foretold, error, len(checked))

    def _to_check(self, foretold: Float64Array, most: int) -> list[int]:
        """Mixes that are put together, spread evenly from the worst to the best."""
        composed = [n for n, recipe in enumerate(self._recipes) if len(recipe) > 1]
        composed.sort(key=lambda n: float(foretold[n]))
        places = np.linspace(0, len(composed) - 1, min(most, len(composed))).round()
        return [composed[int(place)] for place in places]


def _put_together(recipe: Mapping[Mix, int], scores: Mapping[Mix, Float64Array]) -> Float64Array:
    """The sum a recipe stands for; where an ingredient is broken, broken too."""
    total: Float64Array = np.sum([times * scores[mix] for mix, times in recipe.items()], axis=0)
    broken = np.any([scores[mix] <= BROKEN_SCORE for mix in recipe], axis=0)
    return np.where(broken, BROKEN_SCORE, total)


def references(
    mixes: Sequence[Mix], weight: Callable[[Mix], int], works: Callable[[Mix], bool]
) -> dict[MixClass, Mix]:
    """Of each kind the heaviest mix that works: the largest partners, least narrowed.

    Where none works the heaviest stands: all of them are then found to be broken.
    """
    found: dict[MixClass, Mix] = {}
    by_kind: dict[MixClass, list[Mix]] = {}
    for mix in mixes:
        by_kind.setdefault(kind(mix), []).append(mix)
    for name, of_it in by_kind.items():
        of_it.sort(key=lambda mix: (-weight(mix), mix))
        found[name] = next((mix for mix in of_it if works(mix)), of_it[0])
    return found
