"""How long a selection will still take, estimated after every round.

Denoising takes most of the time of an image, and mixes that differ only in the decoder share it. So
the estimate counts latents: those of the rounds that are still expected, at the speed so far. In a
race, a quarter of the mixes are expected to leave in each round from the one on in which they may.
In two races of the zoo, half of the mixes left in a round, and one in eight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sdpack.evaluate.rules import Rules
from sdpack.pack.planning.mix import Mix

OWN_LATENTS = 0.7  # of the mixes that enter a race, the share whose latents are not another's
STAYING = 0.75  # of the mixes, after a round
FINISH_S = 28.0  # to compare with real images, to time the best mixes, and to write the bundle


@dataclass
class TimeLeft:
    """Measures rounds, and estimates the rest.

    Attributes:
        rules: the rules of the race.
        few: the most mixes in the race.
        now: a monotonic clock, in seconds.
    """

    rules: Rules
    few: int
    now: Callable[[], float] = time.monotonic
    _seconds: float = field(default=0.0, init=False)
    _drawn: float = field(default=0.0, init=False)
    _screened: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)

    def measure(self, seconds: float, mixes: Sequence[Mix], prompts: int, share: float) -> None:
        """Record a round.

        Args:
            share: the share of its images that were new, above 0.
        """
        self._seconds += seconds
        self._drawn += share * latents_of(mixes) * prompts

    def after_screening(self, mixes: Sequence[Mix], seen: int, most: int) -> float | None:
        """Seconds left after a round of a screening; None if nothing was drawn yet.

        Args:
            mixes: the mixes that were drawn; in the first round, one for each variant.
            seen: the number of prompts so far.
            most: the most prompts of the screening.
        """
        is_first = not self._screened  # some mixes are drawn in full after the first round
        self._screened = self._screened or latents_of(mixes)
        checks = OWN_LATENTS * (self.few // 2) * seen if is_first else 0.0
        screened = self._screened * (most - seen)
        race = self._race(self.few, OWN_LATENTS * self.few, 0)
        return self._seconds_for(checks + screened + race)

    def after_round(self, mixes: Sequence[Mix], seen: int) -> float | None:
        """Seconds left after a round of the race that scored these mixes; None if it is not known.

        Args:
            seen: the number of prompts so far.
        """
        if seen <= self._seen:  # mixes that had left the race are back, and draw what others drew
            return None
        self._seen = seen
        return self._seconds_for(self._race(len(mixes), latents_of(mixes), seen))

    def _seconds_for(self, latents: float) -> float | None:
        return FINISH_S + latents * self._seconds / self._drawn if self._drawn else None

    def _race(self, mixes: float, latents: float, seen: int) -> float:
        """The latents that a race still draws.

        Args:
            mixes: the number of mixes.
            latents: how many of them have latents of their own.
        """
        left = 0.0
        while seen < self.rules.most and mixes >= 2:
            if seen >= self.rules.enough:
                mixes, latents = STAYING * mixes, STAYING * latents
            upto = min(self.rules.most, max(self.rules.first, 2 * seen))
            left += latents * (upto - seen)
            seen = upto
        return left


def latents_of(mixes: Sequence[Mix]) -> int:
    """How many of these mixes have latents of their own."""
    return len({(mix.variants[:-1], mix.steps) for mix in mixes})
