"""Scores of two mixes on the same images, and how they differ."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, difference_estimate, mean_estimate, over_prompts

Scores = Mapping[int, float]
"""Score by number of the image."""
PromptOf = Callable[[int], Hashable]
"""Tells the prompts of images apart, by the images' numbers."""


@dataclass(frozen=True)
class Paired:
    """The differences between the scores of two mixes.

    Attributes:
        numbers: of the images that both drew, ascending.
        apart: float64 (images,).
    """

    numbers: Sequence[int]
    apart: Float64Array

    def __len__(self) -> int:
        return len(self.numbers)

    def estimate(self, prompt_of: PromptOf) -> Estimate:
        """The mean difference with its 95 % interval, over prompts."""
        which = [prompt_of(number) for number in self.numbers]
        return difference_estimate(over_prompts(self.apart, which))


def paired(one: Scores, other: Scores) -> Paired:
    """`one` minus `other` on the images both have."""
    both = sorted(one.keys() & other.keys())
    return Paired(both, np.array([one[number] - other[number] for number in both], np.float64))


def mean_score(scores: Scores, prompt_of: PromptOf) -> Estimate:
    """The mean of some scores with its 95 % interval, over prompts."""
    numbers = sorted(scores)
    values = np.array([scores[number] for number in numbers])
    return mean_estimate(over_prompts(values, [prompt_of(number) for number in numbers]))
