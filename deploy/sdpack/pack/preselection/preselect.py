"""Which sets of parts can still win, by their images in fp32.

Quantization rarely improves images, and then by little. So the score of a set of parts in fp32 is
an upper bound for its mixes, and it is known as soon as the parts are exported. A set is beaten by
a mix that fits if even its images in fp32 are

    worse, beyond a confidence interval of the difference and the indifference, or
    worse in the mean over all prompts of the selection, by more than the indifference, if these are
    enough to show mixes equal

over the prompts that both have drawn. Parts that are only in beaten sets are not calibrated,
quantized or compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.evaluate.confidence import interval, repeated_over_prompts
from sdpack.evaluate.rules import BROKEN_SCORE, Rules
from sdpack.pack.planning.mix import PartSet

ROUNDS = 3  # of prompts, each as many as before; sets that are beaten by then cost the least
Draw = Callable[[Sequence[PartSet], Sequence[int]], Float64Array]
"""Draws sets of parts in fp32 on prompts, given by number; float64 (sets, prompts)."""


@dataclass(frozen=True)
class BeatenSet:
    """A set of parts that was left out.

    Attributes:
        parts: the set.
        is_broken: whether one of its images is broken.
        quality: the mean score of its images in fp32.
        prompts: the number of these images.
        difference, low, high: its score minus the winner's, and the interval of that.
    """

    parts: PartSet
    is_broken: bool
    quality: Estimate
    prompts: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Preselected:
    """The result of a preselection.

    Attributes:
        sets: the number of sets that were compared.
        beaten: those that were left out, the best first.
        pictures: the number of images in fp32.
    """

    sets: int
    beaten: tuple[BeatenSet, ...]
    pictures: int


@dataclass
class Preselection:
    """Draws the sets of parts of a request in fp32, and compares them with mixes.

    Attributes:
        sets: the sets.
    """

    sets: Sequence[PartSet]
    draw: Draw
    rules: Rules
    _scores: dict[PartSet, Float64Array] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._alpha = (1 - self.rules.confidence) / max(1, len(self.sets) - 1)

    def run(self, rounds: int = ROUNDS) -> None:
        """Draw the sets on twice as many prompts in each round; those that are beaten drop out.

        What the best set beats may still win if the best set does not fit; it is drawn no more.
        """
        alive, seen = list(self.sets), 0
        for _ in range(rounds):
            upto = min(self.rules.most, max(self.rules.first, 2 * seen))
            if upto == seen or (seen and len(alive) == 1):
                return
            drawn = self.draw(alive, range(seen, upto))
            for parts, scores in zip(alive, drawn, strict=True):
                self._scores[parts] = np.concatenate([self.scores(parts), scores])
            alive, seen = self.unbeaten(alive), upto

    def scores(self, parts: PartSet) -> Float64Array:
        """The scores of a set on the first prompts: float64 (prompts,)."""
        return self._scores.get(parts, np.empty(0))

    @property
    def pictures(self) -> int:
        """The number of images."""
        return sum(len(scores) for scores in self._scores.values())

    def unbeaten(self, sets: Iterable[PartSet]) -> list[PartSet]:
        """The sets that the best of them does not beat; all of them if each draws broken images.

        The best is one of those with the most images: the others were beaten before.
        """
        every = list(sets)
        working = [parts for parts in every if not is_broken(self.scores(parts))]
        if not working:
            return every
        most = max(len(self.scores(parts)) for parts in working)
        longest = [parts for parts in working if len(self.scores(parts)) == most]
        best = max(longest, key=lambda parts: float(self.scores(parts).mean()))
        return self.rivals(every, self.scores(best))

    def rivals(self, sets: Iterable[PartSet], scores: Float64Array) -> list[PartSet]:
        """The sets that a mix with these scores on the first prompts does not beat."""
        return [parts for parts in sets if not self._is_beaten(parts, scores)]

    def beaten(self, kept: Collection[PartSet], scores: Float64Array) -> list[BeatenSet]:
        """The sets that were not kept, the best first, compared with the winner's scores."""
        left_out = [parts for parts in self.sets if parts not in kept]
        compared = [self._compared(parts, scores) for parts in left_out]
        return sorted(compared, key=lambda each: -each.difference)

    def _compared(self, parts: PartSet, scores: Float64Array) -> BeatenSet:
        own = self.scores(parts)
        apart = interval(_differences(own, scores), self._alpha, self.rules.looks)
        mean = mean_estimate(repeated_over_prompts(own, self.rules.prompts))
        return BeatenSet(parts, is_broken(own), mean, len(own), *apart)

    def _is_beaten(self, parts: PartSet, scores: Float64Array) -> bool:
        own = self.scores(parts)
        if is_broken(own):
            return True
        differences = _differences(own, scores)
        mean, _, high = interval(differences, self._alpha, self.rules.looks)
        slack, most = self.rules.indifference, max(self.rules.most, self.rules.fewest)
        return high < -slack or (len(differences) >= most and mean < -slack)


def is_broken(scores: Float64Array) -> bool:
    """Whether one of the images is broken."""
    return bool((scores <= BROKEN_SCORE).any())


def _differences(own: Float64Array, others: Float64Array) -> Float64Array:
    """The differences on the prompts that both were scored on."""
    count = min(len(own), len(others))
    return np.asarray(own[:count] - others[:count])
