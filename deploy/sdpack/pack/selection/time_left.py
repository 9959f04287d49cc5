"""How long a selection will still take, estimated after every round.

Denoising takes most of the time of an image, and mixes that differ only in the decoder share it. So
the estimate counts the latents that are still to be drawn, at the speed so far. Which mixes will be
drawn is not known: of a number of mixes, taken at random, so many latents are expected, less those
that other mixes have drawn already. In each round of a race from the one on in which mixes may
leave, a quarter of them are expected to. In two races of the zoo, half of the mixes left in a
round, and one in eight.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sdpack.evaluate.rules import Rules
from sdpack.pack.planning.mix import Mix, Variant

STAYING = 0.75  # of the mixes, after a round
FINISH_S = 28.0  # to compare with real images, to time the best mixes, and to write the bundle

Latents = tuple[tuple[Variant, ...], int | None]
"""What latents depend on: the variants of a mix except its decoder, and its number of steps."""


@dataclass
class TimeLeft:
    """Measures rounds, and estimates the rest.

    Attributes:
        rules: the rules of the race.
        few: the most mixes in the race.
        mixes: all mixes of the selection.
        now: a monotonic clock, in seconds.
    """

    rules: Rules
    few: int
    mixes: Sequence[Mix]
    now: Callable[[], float] = time.monotonic
    _seconds: float = field(default=0.0, init=False)
    _new: float = field(default=0.0, init=False)
    _prompts: Counter[Latents] = field(default_factory=Counter, init=False)
    _screened: frozenset[Latents] = field(default=frozenset(), init=False)
    _seen: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._sharing = Counter(_latents(mix) for mix in self.mixes)

    def measure(self, seconds: float, mixes: Sequence[Mix], seen: int, share: float) -> None:
        """Record a round that scored mixes on the prompts up to a number.

        Args:
            seen: the number of prompts.
            share: the share of its images that were new; of a round without any, the time says
                nothing.
        """
        new = 0
        for latents in latents_of(mixes):
            new += max(0, seen - self._prompts[latents])
            self._prompts[latents] = max(seen, self._prompts[latents])
        if share > 0:
            self._seconds += seconds
            self._new += share * new

    def after_screening(self, mixes: Sequence[Mix], seen: int, most: int) -> float | None:
        """Seconds left after a round of a screening; None if nothing was drawn yet.

        Args:
            mixes: the mixes that were drawn; in the first round, one for each variant.
            seen: the number of prompts so far.
            most: the most prompts of the screening.
        """
        checks = 0.0
        if not self._screened:  # some mixes are drawn in full after the first round
            checks = self._expected(self.few // 2) * self._unknown(0)
        if not self._screened or seen > self.rules.first:
            self._screened = latents_of(mixes)
        screened = sum(max(0, most - self._prompts[latents]) for latents in self._screened)
        race = sum(
            staying * self._expected(self.few) * self._unknown(prompt, most)
            for staying, prompts in self._rounds(0)
            for prompt in prompts
        )
        # Of the latents of the race, the checks draw some on the first prompts.
        return self._seconds_for(screened + race + checks * seen * self._also_unchecked)

    def after_round(self, mixes: Sequence[Mix], seen: int) -> float | None:
        """Seconds left after a round of the race that scored these mixes; None if it is not known.

        Args:
            seen: the number of prompts so far.
        """
        if seen <= self._seen:  # mixes that had left the race are back, and draw what others drew
            return None
        self._seen = seen
        known = [self._prompts[latents] for latents in latents_of(mixes)]
        left = sum(
            staying * sum(prompt >= drawn for drawn in known)
            for staying, prompts in self._rounds(seen)
            for prompt in prompts
        )
        return self._seconds_for(left if len(mixes) > 1 else 0)

    @property
    def _also_unchecked(self) -> float:
        """The share of the checks' latents that the race is not expected to need."""
        return 1 - self._expected(self.few) / len(self._sharing)

    def _seconds_for(self, latents: float) -> float | None:
        return FINISH_S + latents * self._seconds / self._new if self._new else None

    def _expected(self, count: int) -> float:
        """How many different latents so many mixes have, if they are taken at random."""
        absent = max(0.0, 1 - count / len(self.mixes))
        return sum(1 - absent**sharing for sharing in self._sharing.values())

    def _unknown(self, prompt: int, screened: int = 0) -> float:
        """The share of all latents that were not drawn for a prompt.

        Args:
            screened: the number of prompts at the end of the screening.
        """
        known = {latents for latents, prompts in self._prompts.items() if prompts > prompt}
        if prompt < screened:
            known |= self._screened
        return 1 - len(known) / len(self._sharing)

    def _rounds(self, seen: int) -> Iterator[tuple[float, range]]:
        """The rounds that a race still has, after so many prompts.

        Yields:
            the share of the mixes that are left, and the prompts.
        """
        staying = 1.0
        while seen < self.rules.most:
            if seen >= self.rules.enough:
                staying *= STAYING
            prompts = self.rules.round_after(seen)
            yield staying, prompts
            seen = prompts.stop


def latents_of(mixes: Iterable[Mix]) -> frozenset[Latents]:
    """The latents of these mixes."""
    return frozenset(_latents(mix) for mix in mixes)


def _latents(mix: Mix) -> Latents:
    return mix.variants[:-1], mix.steps
