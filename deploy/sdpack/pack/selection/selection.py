"""The selection among the mixes that fit: a screening if there are many, then the race."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from sdpack.documents.evidence import LatencyLimit, TimeLimit
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate
from sdpack.domain.placement import Loading
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.race import Race
from sdpack.evaluate.rules import BROKEN_SCORE, Arm, Preference, RaceResult, Rules, Standing
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.preselection.preselect import Preselected
from sdpack.pack.selection.mix_evaluator import FEWEST_FOR_KID, MixEvaluator
from sdpack.pack.selection.rounds import finalists_of, screened_prompts
from sdpack.pack.selection.screening import Screener, ScreeningResult, references
from sdpack.pack.selection.time_left import TimeLeft
from sdpack.units import format_estimate


@dataclass(frozen=True)
class SelectionResult:
    """The winner, and how it was selected.

    Attributes:
        fitted: the mixes that fit; standings refer to them by their place.
        race: the result of the race.
        screened: the result of the screening before the race; None if there was none.
        pictures: the number of images that were drawn.
        rules: the rules of the race.
        limit: the limit on the time of an image; None without one.
        time_limit: the limit on the time of the build; None without one.
        preselected: the sets of parts that were left out before; None if none were compared.
    """

    fitted: tuple[Fitted, ...]
    race: RaceResult
    screened: ScreeningResult | None
    pictures: int
    rules: Rules
    limit: LatencyLimit | None = None
    time_limit: TimeLimit | None = None
    preselected: Preselected | None = None

    @property
    def standings(self) -> tuple[Standing, ...]:
        """How the race ended for each mix that was in it."""
        return self.race.standings

    @property
    def is_hurried(self) -> bool:
        """Whether the time of the build was up before it had tried everything."""
        return self.time_limit is not None and not self.time_limit.is_complete

    @property
    def winner(self) -> Fitted:
        """The mix that was selected."""
        return self.fitted[self.race.winner]


@dataclass
class Selection:
    """Selects one of an evaluator's fitted mixes, by the evaluator's rules.

    Attributes:
        time_left: estimates how long it will take, which is then said after each round; None where
            nobody waits for it.
    """

    evaluator: MixEvaluator
    time_left: TimeLeft | None = None
    _latencies: dict[int, float] = field(default_factory=dict, init=False)

    def run(self) -> SelectionResult:
        """Screen the mixes if there are many, and race the finalists.

        The screening draws some mixes that it then leaves out. If one of these scored better than
        the winner beyond chance, the race is repeated with it. Scores are never drawn twice.

        Raises:
            BrokenPictureError: every mix draws broken images.
        """
        count = len(self.evaluator.fitted)
        screened = self._screen() if count > self._finalists else None
        numbers = list(screened.finalists) if screened else list(range(count))
        while True:
            race = self._race(numbers)
            overlooked = [] if race.is_cut else self._overlooked(race.winner, numbers)
            if not overlooked:
                drawn, fitted = self.evaluator.drawn, tuple(self.evaluator.fitted)
                pictures = sum(drawn.values())
                return SelectionResult(fitted, race, screened, pictures, self._rules)
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
        return finalists_of(self.evaluator.is_large)

    def _race(self, numbers: Sequence[int]) -> RaceResult:
        """Race these fitted mixes; the result refers to them by these numbers."""
        fitted = self.evaluator.fitted

        def scores(arms: Sequence[int], prompts: Sequence[int]) -> Float64Array:
            mixes = [fitted[numbers[arm]].mix for arm in arms]
            seen = prompts[-1] + 1
            ahead = self._rules.round_after(seen)
            return self._drawn(mixes, prompts, ahead, lambda time: time.after_round(mixes, seen))

        def guard(leader: int, eligible: Sequence[int]) -> int:
            chosen = self._guard(numbers[leader], [numbers[arm] for arm in eligible])
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

    def _screen(self) -> ScreeningResult:
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
        screened = screener.run(arms, rules, self._finalists)
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

    def _overlooked(self, winner: int, raced: Sequence[int]) -> list[int]:
        """Fitted mixes that did not race, but scored better than the winner.

        They are compared as the race would have compared them: by its confidence interval of the
        difference, over the prompts that both mixes drew.
        """
        fitted, drawn = self.evaluator.fitted, self.evaluator.drawn
        left_out = set(range(len(fitted))) - set(raced)
        others = [number for number in sorted(left_out) if drawn.get(fitted[number].mix, 0) > 1]
        alpha, looks = (1 - self._rules.confidence) / max(1, len(raced)), self._rules.looks
        better = []
        for number in others:
            prompts = min(drawn[fitted[number].mix], drawn[fitted[winner].mix])
            own = self.evaluator.scores_of(fitted[number].mix, prompts)
            best = self.evaluator.scores_of(fitted[winner].mix, prompts)
            if own.min() > BROKEN_SCORE and interval(own - best, alpha, looks)[1] > 0:
                better.append(number)
        return better

    def _guard(self, leader: int, eligible: Sequence[int]) -> int:
        """The preferred one of the eligible mixes whose images are near enough to real ones."""
        evaluator = self.evaluator
        prompts = min(evaluator.drawn[evaluator.fitted[number].mix] for number in eligible)
        if len(eligible) == 1 or prompts < FEWEST_FOR_KID or not evaluator.has_real_images:
            return eligible[0]
        return first_near_real(leader, eligible, lambda number: evaluator.distance(number, prompts))


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
