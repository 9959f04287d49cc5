"""The race: which of many mixes draws best, with as few pictures as possible.

Every mix is scored on the same prompts from the same noise, so mixes are compared by their
differences prompt by prompt. After each round, each mix is set beside the leader, the one with the
best mean, and beside the champion, the smallest that is as good as the leader to within an
indifference nobody would see. A mix leaves the race when it is

    worse       than the leader
    the same    as the champion or another smaller mix
    no better   than the leader by more than the indifference, and larger than the champion
    broken      because one of its pictures is

Mixes still level at the end are a tie: not shown to be worse than the leader, and seen to be worse
by no more than the indifference. A tie goes to the smaller, then the faster, unless a guard, a
second metric, finds fault with it.

Everything is read off a confidence sequence, an interval that holds at every round at once, so
that looking after each round costs no confidence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", 2021). The best mix is
compared with at most K - 1 others; each comparison gets its share of the error. The sequence is
asymptotic: it trusts the spread that was seen, and a failure that strikes one prompt in twenty may
not be among the first. Hence nobody is called the same before `Rules.fewest` prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sdpack.errors import BrokenPictureError

BROKEN_SCORE = -1.0  # of a broken picture: a cosine is at least that

Floats = NDArray[np.float64]
Guard = Callable[[int, Sequence[int]], int]
"""The leader and the mixes level with it, itself among them and the lightest first: the winner."""
Score = Callable[[Sequence[int], Sequence[int]], Floats]
"""(arms, prompts) by number to their scores, float64 (arms, prompts); larger is better."""


@dataclass(frozen=True)
class Arm:
    """One mix; of equals, the smaller wins, then the faster.

    Attributes:
        size_bytes: of all its parts.
        slowness: larger is slower, in whatever unit.
    """

    name: str
    size_bytes: int
    slowness: float = 0.0

    @property
    def burden(self) -> tuple[int, float, str]:
        """What decides between equals; the name, last, makes every race reproducible."""
        return self.size_bytes, self.slowness, self.name


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
    """

    confidence: float = 0.95
    indifference: float = 0.01
    first: int = 16
    fewest: int = 32
    most: int = 384


class Fate(StrEnum):
    """How the race ended for a mix."""

    WON = "won"
    TIED = "tied"
    SAME = "same"
    NO_BETTER = "no better"
    WORSE = "worse"
    BROKEN = "broken"


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
    fate: Fate
    prompts: int
    mean: float
    difference: float
    low: float
    high: float
    to: int


@dataclass(frozen=True)
class Outcome:
    """A finished race: standings, the winner first, and how many pictures it took."""

    winner: int
    standings: tuple[Standing, ...]
    pictures: int


class Race:
    """One race; `run` it once, or `narrow` a field with scores that are only predicted.

    Args:
        slack: how far the mean of the scores may be off; every interval is widened by it.
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
        self._slack = slack
        self._scores = np.full((len(arms), self.rules.most), np.nan)
        self._seen = np.zeros(len(arms), int)
        self._lost: dict[int, tuple[Fate, int]] = {}
        self._alpha = (1 - self.rules.confidence) / max(1, len(arms) - 1)

    def run(self, guard: Guard = lambda _, level: level[0]) -> Outcome:
        """Rounds until leader and champion are left, or the prompts are used up.

        Args:
            guard: chooses among those that are level at the end; by default the lightest.

        Raises:
            BrokenPictureError: every mix draws broken pictures.
        """
        seen = 0
        while not self._decided(seen) and seen < self.rules.most:
            seen = self._round(seen)
        return self._outcome(guard)

    def narrow(self, few: int) -> tuple[list[int], Floats]:
        """Rounds until at most `few` are left, or the prompts are used up.

        Should more be left then, the better half of `few` and the lightest half of those level
        with the leader go on: the latter are what a tie would choose from.

        Returns:
            the arms left, and every arm's mean over the prompts it had, float64 (arms,).
        """
        seen = 0
        while len(self._alive()) > few and seen < self.rules.most:
            seen = self._round(seen)
        means = np.array([self._mean(arm) if seen else np.nan for arm in range(len(self.arms))])
        left = self._alive()
        if len(left) > few:
            best = sorted(left, key=lambda arm: (-means[arm], self.arms[arm].burden))
            chosen = [*best[: few // 2], *self._level()[: few // 2], *best[few // 2 :]]
            left = sorted(list(dict.fromkeys(chosen))[:few])
        return left, means

    def _round(self, seen: int) -> int:
        upto = min(self.rules.most, max(self.rules.first, 2 * seen))
        alive = self._alive()
        self._scores[alive, seen:upto] = self._score(alive, range(seen, upto))
        self._seen[alive] = upto
        lowest = self._scores[alive, seen:upto].min(axis=1)
        for arm, score in zip(alive, lowest, strict=True):
            if score <= BROKEN_SCORE:
                self._lost[arm] = (Fate.BROKEN, arm)
        if not self._alive():
            raise BrokenPictureError(
                f"all {len(self.arms)} mixes draw broken pictures, {self.arms[alive[0]].name} "
                "among them; check the checkpoints and the scheduler, or use other precisions"
            )
        self._drop()
        return upto

    def _alive(self) -> list[int]:
        return [arm for arm in range(len(self.arms)) if arm not in self._lost]

    def _decided(self, seen: int) -> bool:
        if seen == 0:
            return False
        leader = self._leader()
        return set(self._alive()) == {leader, self._champion(leader)}

    def _leader(self) -> int:
        """The mix with the best mean; of equals the lightest."""
        return min(self._alive(), key=lambda arm: (-self._mean(arm), self.arms[arm].burden))

    def _mean(self, arm: int) -> float:
        return float(self._scores[arm, : self._seen[arm]].mean())

    def _champion(self, leader: int) -> int:
        """The lightest mix that is as good as the leader; the leader if no other is."""
        equals = [arm for arm in self._alive() if arm == leader or self._same(arm, leader)]
        return min(equals, key=lambda arm: self.arms[arm].burden)

    def _drop(self) -> None:
        leader = self._leader()
        champion = self._champion(leader)
        for arm in self._alive():
            if arm not in (leader, champion):
                fate = self._fate(arm, leader, champion)
                if fate is not None:
                    self._lost[arm] = (fate, leader if fate is Fate.WORSE else champion)
        self._drop_doubles({leader, champion})

    def _fate(self, arm: int, leader: int, champion: int) -> Fate | None:
        enough = self._enough(int(self._seen[arm]))
        if self._close(arm, leader):
            return Fate.SAME if enough else None
        _, _, high = self._difference(arm, leader)
        if high < 0:
            return Fate.WORSE
        if not enough:
            return None
        heavier = self.arms[arm].burden > self.arms[champion].burden
        return Fate.NO_BETTER if heavier and high < self.rules.indifference else None

    def _drop_doubles(self, spared: set[int]) -> None:
        """Of undecided mixes that are the same, only the lightest goes on."""
        undecided = set(self._alive()) - spared
        arms = sorted(undecided, key=lambda arm: self.arms[arm].burden)
        same = self._same_pairs(arms)
        kept: list[int] = []
        for place, arm in enumerate(arms):
            lighter = next((k for k in kept if same[k, place]), None)
            if lighter is None:
                kept.append(place)
            else:
                self._lost[arm] = (Fate.SAME, arms[lighter])

    def _same_pairs(self, arms: Sequence[int]) -> NDArray[np.bool_]:
        """`_same` of every two of these arms, which were scored on the same prompts."""
        if len(arms) < 2:
            return np.zeros((len(arms), len(arms)), bool)
        seen = int(self._seen[list(arms)].min())
        if not self._enough(seen):
            return np.zeros((len(arms), len(arms)), bool)
        scores = self._scores[list(arms), :seen]
        together = np.cov(scores)
        alone = np.diag(together)
        spread = np.sqrt(np.maximum(alone[:, None] + alone[None, :] - 2 * together, 0))
        apart = np.abs(scores.mean(1)[:, None] - scores.mean(1)[None, :])
        half = spread * half_width(seen, self._alpha) + self._slack
        return np.asarray(apart + half < self.rules.indifference)

    def _same(self, one: int, other: int) -> bool:
        enough = self._enough(int(min(self._seen[one], self._seen[other])))
        return enough and self._close(one, other)

    def _close(self, one: int, other: int) -> bool:
        """Whether all of the difference's interval is within the indifference."""
        _, low, high = self._difference(one, other)
        return -self.rules.indifference < low <= high < self.rules.indifference

    def _enough(self, seen: int) -> bool:
        """Whether so many prompts can show that two mixes are the same."""
        return seen > 1 and seen >= min(self.rules.fewest, self.rules.most)

    def _difference(self, one: int, other: int) -> tuple[float, float, float]:
        """Mean and interval of `one` minus `other` over the prompts both were scored on."""
        seen = int(min(self._seen[one], self._seen[other]))
        apart = interval(self._scores[one, :seen] - self._scores[other, :seen], self._alpha)
        return apart[0], apart[1] - self._slack, apart[2] + self._slack

    def _level(self) -> list[int]:
        """The leader and the mixes left that are tied with it, the lightest first."""
        leader = self._leader()
        level = [arm for arm in self._alive() if arm == leader or self._tied(arm, leader)]
        return sorted(level, key=lambda arm: self.arms[arm].burden)

    def _tied(self, arm: int, leader: int) -> bool:
        difference, _, high = self._difference(arm, leader)
        return self._same(arm, leader) or (high >= 0 and difference > -self.rules.indifference)

    def _outcome(self, guard: Guard) -> Outcome:
        winner = guard(self._leader(), self._level())
        standings = [self._standing(arm, winner) for arm in range(len(self.arms))]
        order = list(Fate)
        standings.sort(key=lambda s: (order.index(s.fate), -s.mean))
        return Outcome(winner, tuple(standings), int(self._seen.sum()))

    def _standing(self, arm: int, winner: int) -> Standing:
        if arm == winner:
            fate, to = Fate.WON, arm
        else:
            fate, to = self._lost.get(arm, (Fate.TIED, winner))
            to = winner if to == arm else to
        seen, mean = int(self._seen[arm]), self._mean(arm)
        return Standing(arm, fate, seen, mean, *self._difference(arm, winner), to)


def interval(differences: Floats, alpha: float) -> tuple[float, float, float]:
    """Mean of paired differences and a confidence sequence for it, valid at every sample size.

    The two-sided asymptotic confidence sequence of Waudby-Smith et al. (2021), theorem 2.2, at
    level 1 - `alpha`. Its free parameter is set so that it is narrowest at 64 prompts.
    """
    n = len(differences)
    mean = float(differences.mean())
    spread = float(differences.std(ddof=1)) if n > 1 else math.inf
    half = spread * half_width(n, alpha)
    return mean, mean - half, mean + half


def half_width(n: int, alpha: float) -> float:
    """Half the width of `interval` after n samples, in standard deviations of one sample."""
    rho2 = _rho2(alpha, 64)
    inner = 2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    return math.sqrt(inner)


def _rho2(alpha: float, n: int) -> float:
    """The parameter that makes the sequence about narrowest at n samples (ibid., appendix B.2)."""
    log = -2 * math.log(alpha)
    return (log + math.log(1 + log)) / n
