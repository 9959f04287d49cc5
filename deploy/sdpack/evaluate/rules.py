"""What a race is told, and what it answers: arms, rules, standings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BROKEN_SCORE = -1.0  # of a broken picture: a cosine is at least that


class Preference(StrEnum):
    """What decides among mixes that were shown equal to the best.

    SPEED and MEMORY may also take a comparison that is still open, within the indifference.
    QUALITY, the default, takes the smaller of those shown equal and nothing that is open.
    """

    QUALITY = "quality"
    SPEED = "speed"
    MEMORY = "memory"

    @property
    def takes_open(self) -> bool:
        return self is not Preference.QUALITY


@dataclass(frozen=True)
class Arm:
    """One mix.

    Attributes:
        cost: what decides between equals: the first number that differs; the lower one wins.
    """

    name: str
    cost: tuple[float, ...]

    @property
    def key(self) -> tuple[tuple[float, ...], str]:
        """Sorts the preferred mix first; the name, last, makes every race reproducible."""
        return self.cost, self.name


@dataclass(frozen=True)
class Rules:
    """How a race is run.

    Attributes:
        confidence: that the best mix is not thrown out as worse.
        indifference: a difference in score that is as good as none.
        first: prompts of the first round; each later one doubles what was seen.
        fewest: prompts that must be seen (or `most`, if that is less) before a mix leaves for any
            reason but being worse.
        most: prompts at most.
        prefer: what decides among mixes that were shown equal.
    """

    confidence: float = 0.95
    indifference: float = 0.01
    first: int = 16
    fewest: int = 32
    most: int = 384
    prefer: Preference = Preference.QUALITY

    @property
    def enough(self) -> int:
        """How many prompts can show that two mixes are equal; one alone never does."""
        return max(2, min(self.fewest, self.most))


class Outcome(StrEnum):
    """How the race ended for a mix."""

    WON = "won"
    OPEN = "open"
    SAME = "same"
    NO_BETTER = "no better"
    WORSE = "worse"
    BROKEN = "broken"


class Basis(StrEnum):
    """What the winner's place rests on.

    Attributes:
        BEST: no mix had a better mean.
        EQUAL: it was shown equal to every mix with a better mean.
        OPEN: a comparison with a mix of a better mean was open; only a preference takes that.
    """

    BEST = "best"
    EQUAL = "shown equal"
    OPEN = "open"


@dataclass(frozen=True)
class Standing:
    """How one mix came out.

    Attributes:
        prompts: how many it was scored on.
        mean: its score over them.
        difference, low, high: its score minus the winner's over the prompts both had, and the
            interval of that difference at the race's confidence.
        to: the number of the mix it lost to or was the same as; the winner's own is its own.
    """

    arm: int
    outcome: Outcome
    prompts: int
    mean: float
    difference: float
    low: float
    high: float
    to: int


@dataclass(frozen=True)
class RaceResult:
    """A finished race: standings, the winner first, and how many pictures it took."""

    winner: int
    standings: tuple[Standing, ...]
    pictures: int
    basis: Basis = Basis.BEST
