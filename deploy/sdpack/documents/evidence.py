"""Why a bundle's mix was chosen: what was measured, and how the others did."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, NonNegativeInt, PositiveInt

from sdpack.documents.document import Document
from sdpack.domain.placement import Role


class Estimated(Document):
    """A mean and its 95 % interval over so many pictures."""

    value: float
    low: float
    high: float
    pictures: PositiveInt


class StandingFigures(Document):
    """How one mix of the race came out.

    Attributes:
        size_bytes: of equals the smaller won: its peak in the fastest placement, or its files
            where peaks are measured.
        weights: of every part, whatever is loaded when.
        outcome: "won", "open", "same", "no better" or "worse", than what `lost_to` names, or
            "broken", if a picture of its was; bundles of schema 1 say "tied" for open.
        quality: the mean of its own pictures, and its 95 % interval.
        difference, low, high: its score minus the winner's, and the interval that decided the race
            (None: not bounded).
        latency_s: of one picture where the bundle was built; None where it was not measured.
    """

    mix: str
    placement: str
    peak_bytes: int
    size_bytes: int
    weights: Mapping[Role, int]
    outcome: str
    lost_to: str
    quality: Estimated
    difference: float
    low: float | None
    high: float | None
    latency_s: float | None


class SelectionRule(Document):
    """By which rule the winner was chosen, and what its place rests on.

    Attributes:
        prefer: what decided among mixes that were shown equal: "quality", "speed" or "memory".
        basis: "best" (no mix had a better mean), "shown equal" (to every mix with a better mean),
            or "open" (a comparison with a better mean was not decided; `prefer` allows that).
        confidence: of the intervals that decided the race, which hold at every round at once and
            for all mixes of the race together.
        indifference: a difference in score that is as good as none.
        prompts: the most a mix was scored on.
    """

    prefer: str
    basis: str
    confidence: float
    indifference: float
    prompts: PositiveInt


class Screening(Document):
    """Who was left out before the race, by scores put together from those of the parts.

    Attributes:
        error: the farthest such a mean was from the drawn one, over `checked` mixes.
        foretold: of each mix left out, the mean put together.
    """

    error: float
    checked: int
    foretold: Mapping[str, float]


class Evidence(Document):
    """Why this mix: what was measured, on what, and how the others did.

    Attributes:
        rule: by which the mix was chosen; None in bundles of schema 1.
        tiled_difference: levels of 255 by which a picture decoded in tiles differed from the same
            decoded at once; None where nothing is decoded in tiles.
        standings: of every mix that raced, the winner's first.
    """

    metric: str
    measured_on: str
    quality: Estimated
    kid: Estimated | None
    tiled_difference: NonNegativeInt | None = None
    mixes: int
    pictures: int
    rule: SelectionRule | None = None
    screening: Screening | None = None
    standings: tuple[StandingFigures, ...] = Field(min_length=1)

    @property
    def winner(self) -> StandingFigures:
        return self.standings[0]
