"""The race: finds the best of many mixes with as few pictures as possible.

Every mix is scored on the same prompts from the same noise, so mixes are compared by their
differences prompt by prompt. The leader is the mix with the best mean. Two mixes are *shown equal*
when the whole interval of their difference lies within the indifference and contains zero: a
difference that was measured is not equality.

The winner is the leader, unless a mix that is preferred (smaller, or faster) was shown equal to the
leader and to every other mix with a better mean than its own. If a comparison is still open when
the prompts are used up, the better mean wins; a preference for speed or memory also accepts an open
comparison if the measured difference is within the indifference. No winner is therefore worse than
another mix by an interval that excludes zero. Without such a preference, no winner has a lower mean
than a mix it was not shown equal to.

After each round a mix leaves the race when it is

    worse       than the leader
    the same    as a preferred mix: shown equal to it
    no better   than the leader by more than the indifference, and not preferred to the champion,
                the mix that would win now
    broken      because one of its pictures is

A mix that left early returns, and is scored on more prompts, if it prevents a mix that may win from
winning, on the prompts both drew.

All decisions use intervals that hold in all rounds together (`sdpack.evaluate.confidence`). The
best mix is compared with at most K - 1 others; each comparison gets its share of the error. A
failure on one prompt in twenty may not show on the first prompts. Therefore no two mixes count as
the same before `Rules.fewest` prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from sdpack.domain.arrays import Float64Array
from sdpack.errors import BrokenPictureError
from sdpack.evaluate.comparisons import Comparisons
from sdpack.evaluate.rules import Arm, Basis, Outcome, RaceResult, Rules, Standing
from sdpack.progress import TimeIsUp

Guard = Callable[[int, Sequence[int]], int]
"""Chooses the winner: called with the leader and the mixes that may win, the preferred first."""
Score = Callable[[Sequence[int], Sequence[int]], Float64Array]
"""Numbers of arms and prompts to scores, float64 (arms, prompts); larger is better."""


class Race:
    """One race; `run` it once, or `narrow` a field with scores that are only predicted.

    Args:
        slack: possible error of a mean score; every interval is widened by it.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        score: Score,
        rules: Rules | None = None,
        slack: float = 0.0,
    ) -> None:
        self.arms = arms
        self.rules = rules or Rules()
        self._score = score
        self._compared = Comparisons(len(arms), self.rules, slack)
        self._lost: dict[int, tuple[Outcome, int]] = {}

    def run(self, guard: Guard = lambda _, eligible: eligible[0]) -> RaceResult:
        """Run rounds until only leader and champion are left, or the prompts are used up.

        If scoring raises TimeIsUp after the first round, the result is that of the last round.

        Args:
            guard: chooses among the mixes that may win; default: the preferred one.

        Raises:
            BrokenPictureError: every mix draws broken pictures.
        """
        seen = 0
        while True:
            try:
                while not self._decided(seen) and seen < self.rules.most:
                    seen = self._round(seen)
                eligible = self._eligible()
                if not self._revived(eligible, seen):
                    return self._result(guard(self._leader(), eligible))
            except TimeIsUp:
                if not seen:
                    raise
                return replace(self._result(self._cut_winner(seen)), is_cut=True)

    def narrow(self, few: int, preferred: int) -> tuple[list[int], Float64Array]:
        """Run rounds until at most `few` are left, or the prompts are used up.

        If more are left then, the best remain, and up to `preferred` of those that could not be
        told apart from the leader, the preferred first.

        Returns:
            the remaining arms, and the mean of every arm's scores, float64 (arms,).
        """
        seen = 0
        while len(self._alive()) > few and seen < self.rules.most:
            seen = self._round(seen)
        means = np.array([self._compared.mean(arm) for arm in range(len(self.arms))])
        left = self._alive()
        if len(left) > few:
            best = sorted(left, key=lambda arm: (-means[arm], self.arms[arm].key))
            chosen = [*best[: few - preferred], *self._level()[:preferred], *best]
            left = sorted(list(dict.fromkeys(chosen))[:few])
        return left, means

    def _round(self, seen: int) -> int:
        upto = self.rules.round_after(seen).stop
        alive = self._alive()
        self._draw(alive, upto)
        if not self._alive():
            raise BrokenPictureError(
                f"all {len(self.arms)} mixes draw broken pictures, such as "
                f"{self.arms[alive[0]].name}; check the checkpoints and the scheduler, or use "
                "other precisions"
            )
        self._drop()
        return upto

    def _draw(self, arms: Sequence[int], upto: int) -> None:
        """Score arms with equally many scores on the prompts up to `upto`."""
        seen = int(self._compared.seen[arms[0]])
        for arm in self._compared.add(arms, self._score(arms, range(seen, upto))):
            self._lost[arm] = (Outcome.BROKEN, arm)

    def _alive(self) -> list[int]:
        return [arm for arm in range(len(self.arms)) if arm not in self._lost]

    def _works(self) -> list[int]:
        """The mixes that drew no broken picture, whether still in the race or not."""
        return [
            arm
            for arm in range(len(self.arms))
            if arm not in self._lost or self._lost[arm][0] is not Outcome.BROKEN
        ]

    def _decided(self, seen: int) -> bool:
        return seen > 0 and set(self._alive()) == {self._leader(), self._champion()}

    def _leader(self) -> int:
        """The mix with the best mean; of equal means the preferred."""
        return min(self._alive(), key=lambda arm: (-self._compared.mean(arm), self.arms[arm].key))

    def _champion(self) -> int:
        """The preferred one of the mixes that were shown equal to every better mix in the race."""
        alive = self._preferred_first(self._alive())
        beaten = self._compared.above_pairs(alive).any(axis=0)
        return alive[int(np.argmin(beaten))]

    def _preferred_first(self, arms: Iterable[int]) -> list[int]:
        return sorted(arms, key=lambda arm: self.arms[arm].key)

    def _drop(self) -> None:
        leader, champion = self._leader(), self._champion()
        for arm in self._alive():
            if arm not in (leader, champion):
                outcome = self._outcome(arm, leader, champion)
                if outcome is not None:
                    self._lost[arm] = (outcome, leader if outcome is Outcome.WORSE else champion)
        self._drop_doubles({leader, champion}, champion)

    def _outcome(self, arm: int, leader: int, champion: int) -> Outcome | None:
        _, _, high = self._compared.difference(arm, leader)
        if high < 0:
            return Outcome.WORSE
        if self.arms[arm].key < self.arms[champion].key:
            return None
        if self._compared.seen[arm] < self.rules.enough or self._compared.is_above(arm, champion):
            return None
        if self._compared.shown_equal(arm, champion):
            return Outcome.SAME
        return Outcome.NO_BETTER if high < self.rules.indifference else None

    def _drop_doubles(self, spared: set[int], champion: int) -> None:
        """Keep only the preferred one of undecided mixes that are the same."""
        arms = self._preferred_first(set(self._alive()) - spared)
        same = self._compared.equal_pairs(arms)
        kept: list[int] = []
        for place, arm in enumerate(arms):
            double = next((k for k in kept if same[k, place]), None)
            if double is None or self._compared.is_above(arm, champion):
                kept.append(place)
            else:
                self._lost[arm] = (Outcome.SAME, arms[double])

    def _level(self) -> list[int]:
        """The leader and the remaining mixes not told apart from it, the preferred first."""
        leader = self._leader()
        return self._preferred_first(
            arm for arm in self._alive() if arm == leader or self._compared.is_open(arm, leader)
        )

    def _eligible(self) -> list[int]:
        """The mixes that may win, the preferred first; the leader is always one of them."""
        leader = self._leader()
        there = [arm for arm in self._works() if not self._is_behind(arm, leader)]
        return self._preferred_first(
            arm
            for arm in self._alive()
            if arm == leader or not any(self._compared.stands_against(o, arm) for o in there)
        )

    def _is_behind(self, arm: int, leader: int) -> bool:
        """Whether a mix was scored on fewer prompts than the leader."""
        return bool(self._compared.seen[arm] < self._compared.seen[leader])

    def _cut_winner(self, seen: int) -> int:
        """The winner of a race that is cut: the leader if a mix that left stands against others.

        Such a mix would have to return, for which there is no time.
        """
        first = self._eligible()[0]
        left = (arm for arm in self._works() if self._compared.seen[arm] < seen)
        if any(self._compared.stands_against(arm, first) for arm in left):
            return self._leader()
        return first

    def _revived(self, eligible: Sequence[int], seen: int) -> bool:
        """Bring back mixes that left early and prevent one that may win from winning.

        They are scored on the prompts the others have seen. A mix that returns has more scores than
        before, so this ends.
        """
        back = [
            arm
            for arm in self._works()
            if self._compared.seen[arm] < seen
            and any(self._compared.stands_against(arm, other) for other in eligible)
        ]
        for upon in sorted({int(self._compared.seen[arm]) for arm in back}):
            group = [arm for arm in back if self._compared.seen[arm] == upon]
            before = {arm: self._lost.pop(arm) for arm in group}
            try:
                self._draw(group, seen)
            except TimeIsUp:
                self._lost |= before
                raise
        if back:
            self._drop()
        return bool(back)

    def _result(self, winner: int) -> RaceResult:
        standings = [self._standing(arm, winner) for arm in range(len(self.arms))]
        order = list(Outcome)
        standings.sort(key=lambda s: (order.index(s.outcome), -s.mean))
        seen = self._compared.seen
        return RaceResult(winner, tuple(standings), int(seen.sum()), self._basis(winner))

    def _basis(self, winner: int) -> Basis:
        others = [arm for arm in self._works() if arm != winner]
        above = [arm for arm in others if self._compared.difference(arm, winner)[0] > 0]
        if not above:
            return Basis.BEST
        shown = all(self._compared.shown_equal(arm, winner) for arm in above)
        return Basis.EQUAL if shown else Basis.OPEN

    def _standing(self, arm: int, winner: int) -> Standing:
        if arm == winner:
            outcome, to = Outcome.WON, arm
        else:
            undecided = Outcome.SAME if self._compared.shown_equal(arm, winner) else Outcome.OPEN
            outcome, to = self._lost.get(arm, (undecided, winner))
            to = winner if to == arm else to
        seen, mean = int(self._compared.seen[arm]), self._compared.mean(arm)
        return Standing(arm, outcome, seen, mean, *self._compared.difference(arm, winner), to)
