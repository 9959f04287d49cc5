"""Races and screenings among the mixes of one evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate
from sdpack.domain.placement import Loading
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import BROKEN_SCORE, Arm, Preference, RaceResult, Rules
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.mix_evaluator import FEWEST_FOR_KID, MixEvaluator
from sdpack.pack.selection.rounds import finalists_of, screened_prompts
from sdpack.pack.selection.screening import Screener, ScreeningResult, references
from sdpack.pack.selection.time_left import TimeLeft
from sdpack.units import format_estimate


@dataclass
class MixRaces:
    """Races and screens an evaluator's fitted mixes, by the evaluator's rules.

    Attributes:
        time_left: estimates how long it will take, which is then said after each round; None where
            nobody waits for it.
    """

    evaluator: MixEvaluator
    time_left: TimeLeft | None = None
    _latencies: dict[int, float] = field(default_factory=dict, init=False)

    def race(self, numbers: Sequence[int]) -> RaceResult:
        """Race these fitted mixes; the result refers to them by these numbers."""
        fitted = self.evaluator.fitted

        def scores(arms: Sequence[int], prompts: Sequence[int]) -> Float64Array:
            mixes = [fitted[numbers[arm]].mix for arm in arms]
            seen = prompts[-1] + 1
            ahead = self._rules.round_after(seen)
            return self._drawn(mixes, prompts, ahead, lambda time: time.after_round(mixes, seen))

        def guard(leader: int, eligible: Sequence[int]) -> int:
            chosen = self._near_real(numbers[leader], [numbers[arm] for arm in eligible])
            return list(numbers).index(chosen)

        timed = self._rules.prefer is Preference.SPEED
        arms = [self._arm(number, timed=timed) for number in numbers]
        race = Race(arms, scores, self._rules).run(guard)
        standings = [replace(s, arm=numbers[s.arm], to=numbers[s.to]) for s in race.standings]
        return replace(race, winner=numbers[race.winner], standings=tuple(standings))

    def _arm(self, number: int, timed: bool) -> Arm:
        """A fitted mix as an arm of the race; size or speed decides between equal mixes.

        Speed is the seconds per image on this machine or, in a screening, where they are not
        measured, the number of steps and the rank of the placement. Mixes that load parts for
        every image come last, as the seconds exclude loading.

        Args:
            timed: whether to measure the seconds.
        """
        fitted = self.evaluator.fitted[number]
        size, rank = float(fitted.size_bytes), float(fitted.rank)
        request = self.evaluator.request
        steps = float(request.steps_of(fitted.mix))
        if self._rules.prefer is not Preference.SPEED:
            return Arm(str(fitted.mix), (size, steps, rank))
        loads = float(fitted.placement.loading is not Loading.RESIDENT)
        seconds = self._latency_s(number) if timed else steps
        return Arm(str(fitted.mix), (loads, seconds, steps, rank, size))

    def _latency_s(self, number: int) -> float:
        """Seconds per image; infinite for a mix that draws broken images."""
        if number not in self._latencies:
            seconds = self.evaluator.latency_s(number, always=True)
            self._latencies[number] = math.inf if seconds is None else seconds
        return self._latencies[number]

    def screen(self) -> ScreeningResult:
        """Narrow the fitted mixes to the finalists."""
        evaluator = self.evaluator
        mixes = [fitted.mix for fitted in evaluator.fitted]

        def works(mixes: Sequence[Mix]) -> list[bool]:
            scores = evaluator.scores(mixes, self._first)
            return [bool((of_mix > BROKEN_SCORE).any()) for of_mix in scores]

        by_class = references(evaluator.possible, evaluator.weight_bytes, works)
        rules = replace(self._rules, most=screened_prompts(self._rules, self._rules.most))

        def draw(mixes: Sequence[Mix], prompts: Sequence[int]) -> Float64Array:
            seen, most = prompts[-1] + 1, rules.most
            ahead = rules.round_after(seen)
            return self._drawn(
                mixes, prompts, ahead, lambda time: time.after_screening(mixes, seen, most)
            )

        screener = Screener(mixes, by_class, frozenset(evaluator.possible), draw)
        arms = [self._arm(number, timed=False) for number in range(len(mixes))]
        screened = screener.run(arms, rules, self.finalists)
        evaluator.say(f"{len(screened.finalists)} of {len(arms)} mixes go into the race")
        return screened

    def _drawn(
        self,
        mixes: Sequence[Mix],
        prompts: Sequence[int],
        ahead: Sequence[int],
        left: Callable[[TimeLeft], float | None],
    ) -> Float64Array:
        """The scores of a round; if any were new, it says how long the rest will take.

        Args:
            ahead: the prompts of the next round.
            left: gives the seconds that are left after the round.
        """
        time = self.time_left
        if time is None:
            return self.evaluator.scores(mixes, prompts, ahead)
        runner, began = self.evaluator.runner, time.now()
        before = runner.drawn
        scores = self.evaluator.scores(mixes, prompts, ahead)
        share = (runner.drawn - before) / max(1, len(mixes) * len(prompts))
        time.measure(time.now() - began, mixes, prompts[-1] + 1, share)
        seconds = left(time)
        if seconds is not None and share > 0:
            self.evaluator.say(f"about {format_estimate(seconds)} left in all")
        return scores

    def _near_real(self, leader: int, eligible: Sequence[int]) -> int:
        """The preferred one of the eligible mixes whose images are near enough to real ones."""
        evaluator = self.evaluator
        prompts = min(evaluator.drawn[evaluator.fitted[number].mix] for number in eligible)
        if len(eligible) == 1 or prompts < FEWEST_FOR_KID or not evaluator.has_real_images:
            return eligible[0]
        return first_near_real(leader, eligible, lambda number: evaluator.distance(number, prompts))

    @property
    def _rules(self) -> Rules:
        return self.evaluator.rules

    @property
    def _first(self) -> range:
        return range(min(self._rules.first, self._rules.most))

    @property
    def finalists(self) -> int:
        """The maximum number of mixes in a race."""
        return finalists_of(self.evaluator.is_large)


def first_near_real(leader: int, level: Sequence[int], distance: Callable[[int], Estimate]) -> int:
    """The first of `level` whose KID is not clearly above the leader's.

    A mix can score well on each image and still lack variety. That shows only in the distance of
    all its images together from real ones.

    Args:
        level: mixes that are level with the leader, preferred first.
        distance: the KID of a mix.
    """
    best = distance(leader)
    return next(n for n in level if n == leader or distance(n).low <= best.high)
