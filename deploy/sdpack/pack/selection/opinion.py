"""The scores of another judge on the images of a race, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.domain.estimate import Estimate


@dataclass(frozen=True)
class Opinion:
    """The scores of one judge on the images of a race.

    Attributes:
        quality: of the winner, over `prompts` prompts.
        mixes: number of mixes that were compared with the winner.
        agreement: rank correlation (Spearman) of this judge's differences from the winner with
            those of the judge that decided, over the mixes that stayed in the race longest; None
            if these are too few.
        against: for each mix that it scores better than the winner beyond chance, its difference
            from the winner and the interval of that.
    """

    quality: Estimate
    prompts: int
    mixes: int
    agreement: float | None
    against: Mapping[int, Estimate]
