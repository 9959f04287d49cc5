from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.domain.appearance import Appearance
from sdpack.domain.estimate import Estimate
from sdpack.domain.placement import Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import BrokenPictureError
from sdpack.evaluate.rules import Basis, Outcome, Preference, Rules
from sdpack.memory.predict import Peak
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.appearance_guard import CheckedAppearance
from sdpack.pack.selection.mix_races import MixRaces, first_near_real
from sdpack.pack.selection.selection import Selection
from sdpack.pack.selection.time_left import TimeLeft
from sdpack.progress import TimeIsUp

KID = {0: Estimate(50, 40, 60), 1: Estimate(90, 80, 99), 2: Estimate(62, 55, 70)}


def fitted(number: int, size: int, loading: Loading = Loading.RESIDENT) -> Fitted:
    parts = [Variant(role, f"{number}", Precision.FP16) for role in (Role.DENOISER, Role.DECODER)]
    mix = Mix.of(Variant(Role.TEXT_ENCODER, "e", Precision.FP16), *parts)
    rank = 0 if loading is Loading.RESIDENT else 1
    peak = Peak(Role.DENOISER, {Role.DENOISER: size}, 0)
    return Fitted(mix, Placement(loading), peak, size, rank)


class MixEvaluator:
    """Scores from a table: float64 (mixes, prompts)."""

    has_real_images = False

    def __init__(self, table: np.ndarray, field: Sequence[Fitted], prefer: Preference) -> None:
        self.table = table
        self.fitted = field
        self.rules = Rules(first=16, fewest=16, most=table.shape[1], prefer=prefer)
        self.is_large = False
        self.drawn: dict[Mix, int] = {}
        self.seconds = {number: 1.0 + number for number in range(len(field))}
        self.lines: list[str] = []
        self.say = self.lines.append
        self.first_round = range(16)
        self.request = SimpleNamespace(steps_of=lambda mix: mix.steps or 50)

    def row(self, mix: Mix) -> int:
        return next(n for n, each in enumerate(self.fitted) if each.mix == mix)

    def scores(
        self, mixes: Sequence[Mix], numbers: Sequence[int], ahead: Sequence[int] = ()
    ) -> np.ndarray:
        for mix in mixes:
            self.drawn[mix] = max(self.drawn.get(mix, 0), max(numbers) + 1)
        return self.table[np.ix_([self.row(mix) for mix in mixes], list(numbers))]

    def scores_of(self, mix: Mix, prompts: int) -> np.ndarray:
        return self.table[self.row(mix), :prompts]

    def latency_s(self, number: int, always: bool = False) -> float | None:
        assert always
        return self.seconds[number]


def selection(
    table: np.ndarray, field: Sequence[Fitted], prefer: Preference = Preference.QUALITY
) -> Selection:
    return Selection(cast(Any, MixEvaluator(table, field, prefer)))


LEVEL = 0.3 + np.random.default_rng(0).normal(0, 0.2, (1, 64))
ALIKE = np.repeat(LEVEL, 3, axis=0)


def test_the_smallest_of_equal_mixes_wins() -> None:
    result = selection(ALIKE, [fitted(0, 30), fitted(1, 10), fitted(2, 20)]).run()
    assert result.race.winner == 1
    assert result.pictures == 3 * 16


@pytest.mark.parametrize(("seconds", "winner"), [([3.0, 2.0, 1.0], 2), ([1.0, 2.0, 3.0], 0)])
def test_a_preference_for_speed_selects_the_mix_that_was_measured_to_be_fastest(
    seconds: list[float], winner: int
) -> None:
    fastest = selection(ALIKE, [fitted(0, 30), fitted(1, 10), fitted(2, 20)], Preference.SPEED)
    cast(Any, fastest.evaluator).seconds = dict(enumerate(seconds))
    assert fastest.run().race.winner == winner


def test_of_equal_mixes_the_one_with_fewer_steps_wins() -> None:
    field = [fitted(0, 10), fitted(1, 10), fitted(2, 10)]
    field[1] = replace(field[1], mix=field[1].mix.in_steps(8))
    field[2] = replace(field[2], mix=field[2].mix.in_steps(16))
    assert selection(ALIKE, field).run().race.winner == 1  # field[0] takes the usual 50


def test_a_mix_that_loads_parts_for_every_image_is_not_the_fastest() -> None:
    field = [fitted(0, 30, Loading.PHASED), fitted(1, 10), fitted(2, 20)]
    assert selection(ALIKE, field, Preference.SPEED).run().race.winner == 1


def test_a_mix_that_was_left_out_but_scored_better_races_after_all() -> None:
    """The screening left it out by its prediction, but its own drawn scores are better."""
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 64))
    table = LEVEL + noise + np.array([[0.0], [-0.1], [0.1]])
    race = selection(table, [fitted(n, 10) for n in range(3)])
    evaluator = cast(Any, race.evaluator)
    evaluator.scores([evaluator.fitted[2].mix], range(16))
    outcome = MixRaces(evaluator).race([0, 1])
    assert outcome.winner == 0
    assert race._overlooked(0, [0, 1]) == [2]
    again = MixRaces(evaluator).race([0, 1, 2])
    assert (again.winner, again.basis) == (2, Basis.BEST)
    assert {s.arm: s.outcome for s in again.standings}[0] is Outcome.WORSE
    assert race._overlooked(2, [0, 1, 2]) == []


def test_a_mix_whose_images_are_far_from_real_ones_is_not_preferred() -> None:
    assert first_near_real(0, [1, 2, 0], KID.__getitem__) == 2
    assert first_near_real(0, [2, 1, 0], KID.__getitem__) == 2
    assert first_near_real(0, [1, 0], KID.__getitem__) == 0
    assert first_near_real(1, [0, 1], KID.__getitem__) == 0


def test_after_each_round_with_new_images_it_says_how_long_the_rest_takes() -> None:
    noise = np.random.default_rng(1).normal(0, 0.2, (3, 64))
    evaluator = MixEvaluator(LEVEL + noise, [fitted(n, n) for n in range(3)], Preference.QUALITY)
    clock, table_scores = iter(range(1000)), evaluator.scores
    runner = SimpleNamespace(drawn=0)

    def scores(
        mixes: Sequence[Mix], numbers: Sequence[int], ahead: Sequence[int] = ()
    ) -> np.ndarray:
        if min(numbers) < 32:  # the rest was drawn by an earlier build
            runner.drawn += len(mixes) * len(numbers)
        return table_scores(mixes, numbers)

    spied: Any = evaluator
    spied.scores, spied.runner = scores, runner
    mixes = [fitted.mix for fitted in evaluator.fitted]
    time_left = TimeLeft(evaluator.rules, 24, mixes, lambda: float(next(clock)))
    Selection(cast(Any, evaluator), time_left=time_left).run()
    assert evaluator.drawn[evaluator.fitted[0].mix] == 64
    # 28 s for the bundle; a second for the 48 latents of a round, and fewer than 100 are left.
    assert [line for line in evaluator.lines if line.endswith("left in all")] == [
        "about 30 s left in all",
        "about 30 s left in all",
    ]


class Guard:
    """Refuses some mixes, and notes which it was asked for."""

    def __init__(self, refused: Sequence[Mix], known: Sequence[Mix] = ()) -> None:
        self.refused = refused
        self.known_mixes = known
        self.asked: list[Mix] = []

    def known(self, mix: Mix) -> CheckedAppearance | None:
        return self._checked(mix) if mix in self.known_mixes else None

    def check(self, mix: Mix) -> CheckedAppearance:
        self.asked.append(mix)
        return self._checked(mix)

    def _checked(self, mix: Mix) -> CheckedAppearance:
        why_not = "their colour is off" if mix in self.refused else ""
        return CheckedAppearance(Appearance(0.9, 1.0, 1.0), 16, why_not)


BETTER_FIRST = LEVEL + np.array([[0.2], [0.1], [0.0]])


def test_a_mix_that_looks_unlike_fp32_does_not_win() -> None:
    field = [fitted(number, 10 * (1 + number)) for number in range(3)]
    evaluator, guard = (
        MixEvaluator(BETTER_FIRST, field, Preference.QUALITY),
        Guard([field[0].mix]),
    )
    result = Selection(cast(Any, evaluator), cast(Any, guard)).run()
    assert result.race.winner == 1
    assert guard.asked == [field[0].mix, field[1].mix]
    assert result.appearance is not None
    assert not result.appearance.why_not
    (unlike,) = [s for s in result.standings if s.outcome is Outcome.UNLIKE]
    assert (unlike.arm, unlike.to) == (0, 1)
    assert unlike.difference == pytest.approx(0.1)
    assert any("may not win" in line and "colour is off" in line for line in evaluator.lines)
    assert sorted(s.arm for s in result.standings) == [0, 1, 2]


def test_if_every_mix_looks_unlike_fp32_the_last_is_named() -> None:
    field = [fitted(number, 10) for number in range(3)]
    evaluator = MixEvaluator(BETTER_FIRST, field, Preference.QUALITY)
    guard = Guard([each.mix for each in field])
    with pytest.raises(BrokenPictureError, match="no mix draws images that look like"):
        Selection(cast(Any, evaluator), cast(Any, guard)).run()


def test_a_mix_that_an_earlier_selection_refused_does_not_race() -> None:
    field = [fitted(number, 10 * (1 + number)) for number in range(3)]
    evaluator = MixEvaluator(BETTER_FIRST, field, Preference.QUALITY)
    guard = Guard([field[0].mix], known=[field[0].mix])
    result = Selection(cast(Any, evaluator), cast(Any, guard)).run()
    assert result.race.winner == 1
    assert guard.asked == [field[1].mix]
    assert evaluator.drawn[field[0].mix] == 16  # to be compared with the winner
    assert [s.arm for s in result.standings if s.outcome is Outcome.UNLIKE] == [0]


def test_a_time_limit_that_ends_the_comparison_cuts_the_race() -> None:
    class Slow(Guard):
        def check(self, mix: Mix) -> CheckedAppearance:
            raise TimeIsUp

    field = [fitted(number, 10) for number in range(3)]
    evaluator = MixEvaluator(BETTER_FIRST, field, Preference.QUALITY)
    result = Selection(cast(Any, evaluator), cast(Any, Slow([]))).run()
    assert result.race.is_cut
    assert result.appearance is None
    assert result.race.winner == 0
