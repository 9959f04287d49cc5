"""Screening: which of thousands of mixes are worth drawing, predicted from each part on its own.

The effect of a part's precision on the images hardly depends on the precisions of the other parts.
So each variant is drawn once in a reference mix with the same denoiser candidate, where it replaces
the reference's own variant. The scores of every other mix are predicted from those, by prompt:

    mix = reference + (with its encoder - reference) + (with its denoiser - reference)
                    + (with its decoder - reference)

The error of these predictions is measured on some mixes that are drawn in full. The predictions
decide only which mixes take part in the race; no figure of a bundle comes from them.
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
"""Draws mixes on prompts, given by number, and returns scores: float64 (mixes, prompts)."""


MixClass = tuple[str, tuple[Role, ...]]
"""A denoiser candidate and the roles of a pipeline; mixes of a class share a reference."""


def class_of(mix: Mix) -> MixClass:
    """The class of a mix."""
    return mix.denoiser.candidate, mix.roles


@dataclass(frozen=True)
class ScreeningResult:
    """The result of a screening.

    Attributes:
        finalists: the numbers of the mixes that take part in the race.
        predicted: the predicted mean score of every mix over the prompts it was screened on,
            float64 (mixes,).
        common: the predicted mean score of every mix over the prompts of the first round, which all
            mixes share, float64 (mixes,).
        error: the largest difference between a predicted and a drawn mean.
        checked: the number of mixes over which the error was measured.
    """

    finalists: list[int]
    predicted: Float64Array
    common: Float64Array
    error: float
    checked: int


@dataclass(frozen=True)
class Screener:
    """Screens mixes.

    Attributes:
        references: the reference mix of each class.
        possible: every mix that can be drawn.
    """

    mixes: Sequence[Mix]
    references: Mapping[MixClass, Mix]
    possible: frozenset[Mix]
    draw: Draw

    @cached_property
    def _sums(self) -> list[dict[Mix, int]]:
        return [self._sum(mix) for mix in self.mixes]

    def _sum(self, mix: Mix) -> dict[Mix, int]:
        """The mixes to draw, and the coefficients with which their scores predict this mix's."""
        reference = self.references[class_of(mix)]
        others = [v for v in mix.variants if v != reference.variant(v.role)]
        changed = [reference.replacing(variant) for variant in others]
        if mix.steps != reference.steps:
            changed.append(reference.in_steps(mix.steps))
        if len(changed) <= 1 or not self.possible.issuperset(changed):
            return {mix: 1}
        return {**dict.fromkeys(changed, 1), reference: 1 - len(changed)}

    def scores(self, numbers: Sequence[int], prompts: Sequence[int]) -> Float64Array:
        """The predicted scores of these mixes: float64 (mixes, prompts)."""
        sums = [self._sums[number] for number in numbers]
        drawn = list(dict.fromkeys(mix for coefficients in sums for mix in coefficients))
        scores = dict(zip(drawn, self.draw(drawn, prompts), strict=True))
        return np.array([_weighted_sum(coefficients, scores) for coefficients in sums])

    def run(self, arms: Sequence[Arm], rules: Rules, few: int) -> ScreeningResult:
        """Narrow the mixes to at most `few` finalists.

        Half as many mixes are drawn in full to measure the error of the predictions.

        Args:
            arms: the arm of each mix.
        """
        first = range(min(rules.first, rules.most))
        common = self.scores(range(len(self.mixes)), first).mean(axis=1)
        checked = self._to_check(common, few // 2)
        drawn = self.draw([self.mixes[number] for number in checked], first).mean(axis=1)
        error = float(np.abs(drawn - common[checked]).max(initial=0.0))
        preferred = few // 2 if rules.prefer.takes_open else few // 4
        finalists, predicted = Race(arms, self.scores, rules, slack=error).narrow(few, preferred)
        return ScreeningResult(finalists, predicted, common, error, len(checked))

    def _to_check(self, means: Float64Array, most: int) -> list[int]:
        """Mixes whose scores are predicted, not drawn, spread evenly from the worst to the best.

        Args:
            means: the predicted mean score of every mix.
        """
        predicted = [n for n, coefficients in enumerate(self._sums) if len(coefficients) > 1]
        predicted.sort(key=lambda n: float(means[n]))
        places = np.linspace(0, len(predicted) - 1, min(most, len(predicted))).round()
        return [predicted[int(place)] for place in places]


def _weighted_sum(
    coefficients: Mapping[Mix, int], scores: Mapping[Mix, Float64Array]
) -> Float64Array:
    """The sum of the mixes' scores; BROKEN_SCORE on prompts where one of them is broken."""
    total: Float64Array = np.sum(
        [times * scores[mix] for mix, times in coefficients.items()], axis=0
    )
    broken = np.any([scores[mix] <= BROKEN_SCORE for mix in coefficients], axis=0)
    return np.where(broken, BROKEN_SCORE, total)


def references(
    mixes: Sequence[Mix],
    weight: Callable[[Mix], int],
    works: Callable[[Sequence[Mix]], Sequence[bool]],
) -> dict[MixClass, Mix]:
    """The reference of each class of mixes: the heaviest that works.

    It has the largest candidates, quantizes them least and takes the most steps. If none works, it
    is the heaviest; the screening then finds all mixes of the class to be broken.

    Args:
        weight: the bytes of a mix's weights.
        works: which of some mixes draw images that are not broken; called with one mix of each
            class that has no reference yet.
    """
    classes: dict[MixClass, list[Mix]] = {}
    for mix in mixes:
        classes.setdefault(class_of(mix), []).append(mix)
    for members in classes.values():
        members.sort(key=lambda mix: (-weight(mix), -(mix.steps or 0), mix))
    chosen = {mix_class: members[0] for mix_class, members in classes.items()}
    open_classes, place = list(classes), 0
    while open_classes:
        tried = {mix_class: classes[mix_class][place] for mix_class in open_classes}
        for mix_class, is_working in zip(tried, works(list(tried.values())), strict=True):
            if is_working:
                chosen[mix_class] = tried[mix_class]
                open_classes.remove(mix_class)
        place += 1
        open_classes = [name for name in open_classes if place < len(classes[name])]
    return chosen
