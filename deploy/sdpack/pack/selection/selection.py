"""Which of the mixes that fit is chosen: a screening if there are many, then the race."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sdpack.documents.record import CHUNK
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate
from sdpack.domain.picture_scaling import SCALING
from sdpack.domain.placement import Loading
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import BROKEN_SCORE, Arm, Outcome, Preference, Rules
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import FEWEST_FOR_KID, MixEvaluator
from sdpack.pack.selection.screening import Screener, ScreeningResult, references
from sdpack.pack.variants.source_graphs import stored_bytes

SCREENED_SHARE = 4  # a screening sees at most this part of the prompts


@dataclass(frozen=True)
class SelectionResult:
    """What was chosen, and how it came about.

    Attributes:
        outcome: of the race; its arms are numbers of fitted mixes.
        screened: who was left out before it; None if nobody was.
        pictures: how many were drawn in all.
    """

    outcome: Outcome
    screened: ScreeningResult | None
    pictures: int


@dataclass
class Selection:
    """Chooses among the fitted mixes of a evaluator, by its rules."""

    evaluator: MixEvaluator
    _latencies: dict[int, float] = field(default_factory=dict, init=False)

    def run(self) -> SelectionResult:
        """Screen the mixes if there are many, and race those that are left.

        A mix that was drawn for the screening, was left out, and still drew better than the winner
        beyond chance, goes into the race after all; what is scored already is not drawn again.

        Raises:
            BrokenPictureError: every mix draws broken pictures.
        """
        count = len(self.evaluator.fitted)
        screened = self._screen() if count > self._finalists else None
        numbers = list(screened.left) if screened else list(range(count))
        while True:
            outcome = self._race(numbers)
            overlooked = self._overlooked(outcome.winner, numbers)
            if not overlooked:
                return SelectionResult(outcome, screened, sum(self.evaluator.drawn.values()))
            names = ", ".join(str(self.evaluator.fitted[number].mix) for number in overlooked)
            self.evaluator.say(f"back into the race: {names}")
            numbers = sorted([*numbers, *overlooked])

    @property
    def _rules(self) -> Rules:
        return self.evaluator.rules

    @property
    def _first(self) -> range:
        return range(min(self._rules.first, self._rules.most))

    @property
    def _finalists(self) -> int:
        task = self.evaluator.runner.task
        return SCALING.large_finalists if task.is_large else SCALING.finalists

    def _race(self, numbers: Sequence[int]) -> Outcome:
        """The race of these fitted mixes; its outcome names them by their own numbers."""
        fitted = self.evaluator.fitted

        def scores(arms: Sequence[int], asked: Sequence[int]) -> Float64Array:
            return self.evaluator.scores([fitted[numbers[arm]].mix for arm in arms], asked)

        def guard(leader: int, eligible: Sequence[int]) -> int:
            chosen = self._guard(numbers[leader], [numbers[arm] for arm in eligible])
            return list(numbers).index(chosen)

        timed = self._rules.prefer is Preference.SPEED
        arms = [self._arm(number, timed=timed) for number in numbers]
        outcome = Race(arms, scores, self._rules).run(guard)
        standings = [replace(s, arm=numbers[s.arm], to=numbers[s.to]) for s in outcome.standings]
        return replace(outcome, winner=numbers[outcome.winner], standings=tuple(standings))

    def _arm(self, number: int, timed: bool) -> Arm:
        """A fitted mix as the race takes it: what decides between equals is its size, or speed.

        Speed is the seconds of a picture on this machine; where they were not measured, as in a
        screening, the rank of the placement. Parts that are loaded for every picture come last,
        as seconds do not count loading.
        """
        fitted = self.evaluator.fitted[number]
        size, rank = float(fitted.size_bytes), float(fitted.rank)
        if self._rules.prefer is not Preference.SPEED:
            return Arm(str(fitted.mix), (size, rank))
        loads = float(fitted.placement.loading is not Loading.RESIDENT)
        seconds = self._latency_s(number) if timed else rank
        return Arm(str(fitted.mix), (loads, seconds, rank, size))

    def _latency_s(self, number: int) -> float:
        """Of one picture; of a mix that draws broken pictures infinite."""
        if number not in self._latencies:
            found = self.evaluator.latency_s(number, always=True)
            self._latencies[number] = math.inf if found is None else found
        return self._latencies[number]

    def _screen(self) -> ScreeningResult:
        evaluator = self.evaluator
        mixes = [fitted.mix for fitted in evaluator.fitted]

        def works(mix: Mix) -> bool:
            return bool((evaluator.scores([mix], self._first) > BROKEN_SCORE).any())

        found = references(evaluator.possible, self._weight, works)
        screen = Screener(mixes, found, frozenset(evaluator.possible), evaluator.scores)
        share = -(-self._rules.most // SCREENED_SHARE // CHUNK) * CHUNK
        most = max(2 * self._rules.first, share)
        rules = replace(self._rules, most=min(self._rules.most, most))
        arms = [self._arm(number, timed=False) for number in range(len(mixes))]
        screened = screen.run(arms, rules, self._finalists)
        evaluator.say(f"{len(screened.left)} of {len(arms)} mixes go into the race")
        return screened

    def _weight(self, mix: Mix) -> int:
        made = (self.evaluator.builder.made(variant).artifact for variant in mix.variants)
        return sum(stored_bytes(artifact) for artifact in made)

    def _overlooked(self, winner: int, raced: Sequence[int]) -> list[int]:
        """Fitted mixes that did not race and were seen to draw better than the winner.

        By the race's own interval over the prompts both drew, as if they had been in it.
        """
        fitted, drawn = self.evaluator.fitted, self.evaluator.drawn
        left = set(range(len(fitted))) - set(raced)
        others = [number for number in sorted(left) if drawn.get(fitted[number].mix, 0) > 1]
        alpha = (1 - self._rules.confidence) / max(1, len(raced))
        found = []
        for number in others:
            both = min(drawn[fitted[number].mix], drawn[fitted[winner].mix])
            mine = self.evaluator.scores_of(fitted[number].mix, both)
            best = self.evaluator.scores_of(fitted[winner].mix, both)
            if mine.min() > BROKEN_SCORE and interval(mine - best, alpha)[1] > 0:
                found.append(number)
        return found

    def _guard(self, leader: int, eligible: Sequence[int]) -> int:
        evaluator = self.evaluator
        seen = min(evaluator.drawn[evaluator.fitted[number].mix] for number in eligible)
        if len(eligible) == 1 or seen < FEWEST_FOR_KID or not evaluator.has_real_pictures:
            return eligible[0]
        return first_as_near(leader, eligible, lambda number: evaluator.distance(number, seen))


def first_as_near(leader: int, level: Sequence[int], distance: Callable[[int], Estimate]) -> int:
    """The first of `level`, the preferred first, whose KID is not clearly above the leader's.

    A mix may please the judge picture by picture and still draw one thing all the time; that shows
    in the distance of its pictures, taken together, from real ones.
    """
    best = distance(leader)
    return next(n for n in level if n == leader or distance(n).low <= best.high)
