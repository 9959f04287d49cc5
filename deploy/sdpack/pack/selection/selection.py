"""The selection among the mixes that fit: a screening if there are many, then the race."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sdpack.documents.evidence import LatencyLimit, TimeLimit
from sdpack.errors import BrokenPictureError
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import BROKEN_SCORE, Outcome, RaceResult, Rules, Standing
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.preselection.preselect import Preselected
from sdpack.pack.selection.appearance_guard import AppearanceGuard, CheckedAppearance
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.mix_races import MixRaces
from sdpack.pack.selection.opinion import Opinion
from sdpack.pack.selection.screening import ScreeningResult
from sdpack.pack.selection.time_left import TimeLeft
from sdpack.progress import TimeIsUp


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
        appearance: the comparison of the winner's images with fp32; None if they were not compared.
        opinions: what other judges say about the winner, by their names.
        judges_left_out: other judges that did not work, and why.
    """

    fitted: tuple[Fitted, ...]
    race: RaceResult
    screened: ScreeningResult | None
    pictures: int
    rules: Rules
    limit: LatencyLimit | None = None
    time_limit: TimeLimit | None = None
    preselected: Preselected | None = None
    appearance: CheckedAppearance | None = None
    opinions: Mapping[str, Opinion] = field(default_factory=dict)
    judges_left_out: Mapping[str, str] = field(default_factory=dict)

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
        guard: keeps mixes from winning whose images look unlike fp32; None to let any win.
        time_left: see `MixRaces`.
    """

    evaluator: MixEvaluator
    guard: AppearanceGuard | None = None
    time_left: TimeLeft | None = None

    def run(self) -> SelectionResult:
        """Screen the mixes if there are many, and race the finalists.

        The screening draws some mixes that it then leaves out. If one of these scored better than
        the winner beyond chance, the race is repeated with it. It is repeated without its winner if
        the guard does not allow that. Scores are never drawn twice.

        Raises:
            BrokenPictureError: every mix draws images that are broken, or that the guard refuses.
        """
        count, races = len(self.evaluator.fitted), MixRaces(self.evaluator, self.time_left)
        screened = races.screen() if count > races.finalists else None
        numbers = list(screened.finalists) if screened else list(range(count))
        unlike = self._known_unlike(numbers)
        numbers = self._rest(numbers, unlike, screened, races.finalists)
        while True:
            race = races.race(numbers)
            overlooked = [] if race.is_cut else self._overlooked(race.winner, [*numbers, *unlike])
            if overlooked:
                self.evaluator.say(f"back into the race: {self._names(overlooked)}")
                numbers = sorted([*numbers, *overlooked])
                continue
            try:
                checked = None if race.is_cut else self._checked(race.winner)
            except TimeIsUp:
                return self._result(replace(race, is_cut=True), screened, None, unlike)
            if checked is None or not checked.why_not:
                return self._result(race, screened, checked, unlike)
            unlike[race.winner] = checked
            self.evaluator.say(f"may not win: {self._why_not(race.winner, checked)}")
            numbers = self._rest(numbers, unlike, screened, races.finalists)

    def _checked(self, number: int) -> CheckedAppearance | None:
        return None if self.guard is None else self.guard.check(self._mix(number))

    def _known_unlike(self, numbers: Sequence[int]) -> dict[int, CheckedAppearance]:
        """The mixes that an earlier selection found to be unlike fp32."""
        if self.guard is None:
            return {}
        known = {number: self.guard.known(self._mix(number)) for number in numbers}
        return {number: each for number, each in known.items() if each and each.why_not}

    def _rest(
        self,
        numbers: Sequence[int],
        unlike: Mapping[int, CheckedAppearance],
        screened: ScreeningResult | None,
        most: int,
    ) -> list[int]:
        """The mixes of a race without those that are unlike fp32.

        If none is left of the finalists, the next ones of the screening take their place.

        Raises:
            BrokenPictureError: there is none.
        """
        rest = [number for number in numbers if number not in unlike]
        if not rest and screened is not None:
            by_score = np.argsort(-screened.predicted, kind="stable")
            rest = sorted([int(number) for number in by_score if number not in unlike][:most])
        if not rest:
            number, checked = next(iter(unlike.items()))
            raise BrokenPictureError(
                "no mix draws images that look like those of its parts in fp32; "
                f"{self._why_not(number, checked)}; use other precisions, or a larger budget"
            )
        return rest

    def _why_not(self, number: int, checked: CheckedAppearance) -> str:
        return f"the images of {self._mix(number)} look unlike fp32: {checked.why_not}"

    def _result(
        self,
        race: RaceResult,
        screened: ScreeningResult | None,
        checked: CheckedAppearance | None,
        unlike: Mapping[int, CheckedAppearance],
    ) -> SelectionResult:
        """The result, with the standings of the mixes that may not win after the others."""
        drawn, fitted = self.evaluator.drawn, tuple(self.evaluator.fitted)
        standings = (*race.standings, *(self._unlike(number, race) for number in unlike))
        pictures = sum(drawn.values())
        return SelectionResult(
            fitted,
            replace(race, standings=standings),
            screened,
            pictures,
            self._rules,
            appearance=checked,
        )

    def _unlike(self, number: int, race: RaceResult) -> Standing:
        """The standing of a mix that may not win, compared with the winner."""
        evaluator = self.evaluator
        if self._mix(number) not in evaluator.drawn:  # but in an earlier selection, so it is known
            evaluator.scores([self._mix(number)], evaluator.first_round)
        seen = evaluator.drawn[self._mix(number)]
        both = min(seen, evaluator.drawn[self._mix(race.winner)])
        own = evaluator.scores_of(self._mix(number), seen)
        best = evaluator.scores_of(self._mix(race.winner), both)
        alpha = (1 - self._rules.confidence) / max(1, len(race.standings))
        apart = interval(own[:both] - best, alpha, self._rules.looks)
        return Standing(number, Outcome.UNLIKE, seen, float(own.mean()), *apart, race.winner)

    def _mix(self, number: int) -> Mix:
        return self.evaluator.fitted[number].mix

    def _names(self, numbers: Sequence[int]) -> str:
        return ", ".join(str(self._mix(number)) for number in numbers)

    @property
    def _rules(self) -> Rules:
        return self.evaluator.rules

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
