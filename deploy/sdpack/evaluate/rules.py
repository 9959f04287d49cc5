"""The input and the result of a race: arms, rules, standings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from sdpack.evaluate.confidence import Looks, planned_looks

BROKEN_SCORE = -1.0  # of a broken picture: a cosine is at least that


class Preference(StrEnum):
    """The criterion among mixes that were shown equal to the best.

    SPEED and MEMORY also accept a comparison that is still open, within the indifference.
    QUALITY, the default, takes the smallest of those shown equal and accepts no open comparison.
    """

    QUALITY = "quality"
    SPEED = "speed"
    MEMORY = "memory"

    @property
    def takes_open(self) -> bool:
        """Whether a comparison that is still open is accepted."""
        return self is not Preference.QUALITY


@dataclass(frozen=True)
class Arm:
    """A mix in a race.

    Attributes:
        cost: decides between equal mixes: of the first numbers that differ, the lower wins.
    """

    name: str
    cost: tuple[float, ...]

    @property
    def key(self) -> tuple[tuple[float, ...], str]:
        """Sort key, the preferred mix first; the name makes every race reproducible."""
        return self.cost, self.name


@dataclass(frozen=True)
class Rules:
    """How a race is run.

    Attributes:
        confidence: probability that the best mix is not dropped as worse.
        indifference: a difference in score too small to matter.
        first: prompts of the first round; each later round doubles the number of prompts.
        fewest: prompts (or `most`, if that is less) before a mix may leave for any reason other
            than being worse.
        most: the largest number of images of a mix.
        prefer: the criterion among mixes that were shown equal.
        prompts: number of different prompts, after which the same ones come again, from other
            noise; None if every image has a prompt of its own.
        noises: from how many noises a prompt is drawn at most.
    """

    confidence: float = 0.95
    indifference: float = 0.01
    first: int = 16
    fewest: int = 32
    most: int = 480
    prefer: Preference = Preference.QUALITY
    prompts: int | None = None
    noises: int = 1

    def with_prompts(self, count: int) -> Rules:
        """Return the rules of a race with this many different prompts."""
        return replace(self, most=min(self.most, count * self.noises), prompts=count)

    @property
    def repeats(self) -> bool:
        """Whether prompts may come again, from other noise."""
        return self.prompts is not None and self.most > self.prompts

    def round_after(self, seen: int) -> range:
        """The prompts of the round after the first `seen` ones; none after the last."""
        return range(seen, min(self.most, max(self.first, 2 * seen)))

    @cached_property
    def looks(self) -> Looks:
        """The numbers of images after each round, for which its intervals hold together."""
        return planned_looks(self.first, self.most, self.prompts)

    @property
    def enough(self) -> int:
        """How many prompts it takes to show two mixes equal; at least two."""
        return max(2, min(self.fewest, self.most))


class Outcome(StrEnum):
    """How the race ended for a mix.

    Attributes:
        DISPUTED: another judge than the one that decided scores it better than the winner.
        UNLIKE: its images look so unlike those of its parts in fp32 that it may not win.
    """

    WON = "won"
    DISPUTED = "disputed"
    OPEN = "open"
    SAME = "same"
    NO_BETTER = "no better"
    WORSE = "worse"
    UNLIKE = "unlike fp32"
    BROKEN = "broken"


class Basis(StrEnum):
    """Why the winner won.

    Attributes:
        BEST: no mix had a better mean.
        EQUAL: it was shown equal to every mix with a better mean.
        OPEN: a comparison with a mix of a better mean was still open; a preference accepts that.
    """

    BEST = "best"
    EQUAL = "shown equal"
    OPEN = "open"


@dataclass(frozen=True)
class Standing:
    """The result of one mix.

    Attributes:
        prompts: number of prompts it was scored on.
        mean: its score over them.
        difference, low, high: its score minus the winner's over the prompts both had, and the
            interval of that difference at the race's confidence.
        to: the number of the mix it lost to or was the same as; for the winner, its own.
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
    """A finished race: standings, the winner first, and the number of pictures drawn.

    Attributes:
        is_cut: whether a time limit ended it before it was decided.
    """

    winner: int
    standings: tuple[Standing, ...]
    pictures: int
    basis: Basis = Basis.BEST
    is_cut: bool = False
