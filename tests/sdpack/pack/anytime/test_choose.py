"""The steps of a choice with a time limit, with sets of parts that are only names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.domain.arrays import Float64Array
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import InfeasibleError, TooSlowError, UnsupportedGraphError
from sdpack.evaluate.rules import RaceResult, Rules
from sdpack.memory.predict import Peak
from sdpack.pack.anytime import choose as module
from sdpack.pack.anytime.choose import TimedChoice
from sdpack.pack.anytime.deadline import FINISH_S, Deadline
from sdpack.pack.latency.select import Selected, SelectionSettings
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, PartSet, Variant
from sdpack.pack.preselection.preselect import Preselection
from sdpack.pack.selection.selection import SelectionResult

SETS = ("large", "medium", "small")
WIDE, NARROW = Precision.FP16, Precision.W4


def mix(name: str, precision: Precision) -> Mix:
    return Mix.of(Variant(Role.DENOISER, name, precision))


class Build:
    """A build in which each step takes some seconds; `limit_s` ends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit_s: float) -> None:
        self.time = 0.0
        self.deadline = Deadline(limit_s + FINISH_S, lambda: self.time)
        self.said: list[str] = []
        self.say = self.deadline.watching(self.said.append)
        self.too_large: set[Mix] = set()
        self.rejected: set[Mix] = set()
        self.cut_race = False
        self.mixed: list[Mix] = []
        self.most: list[int] = []
        self.preselection: Preselection | None = None
        for name in ("prepare_graphs", "select", "LikelyMixes"):
            monkeypatch.setattr(module, name, getattr(self, name))
        monkeypatch.setattr(module, "preselect", lambda *_: self.preselection)
        monkeypatch.setattr(module, "MixEvaluator", lambda *_: None)
        sets = {mix(name, WIDE).part_set: mix(name, WIDE) for name in SETS}
        monkeypatch.setattr(module, "sets_in_fp32", lambda _: sets)
        self.toolchain = SimpleNamespace(
            candidates=SimpleNamespace(placements=[]),
            request=SimpleNamespace(budget=1, rules=Rules(first=16, most=64), latency_limit_s=None),
            context=SimpleNamespace(say=self.say),
            variants=SimpleNamespace(prepare=lambda variants: None),
        )

    def LikelyMixes(self, candidates: Any) -> Any:  # noqa: N802
        def of(parts: str) -> Iterator[Mix]:
            return (mix(parts, precision) for precision in (WIDE, NARROW))

        return SimpleNamespace(sets=lambda: SETS, of=of)

    def prepare_graphs(self, toolchain: Any, variants: Any) -> None:
        self.step("preparing", 10)

    def uniform(self, sets: Sequence[PartSet] | None, also_calibrated: bool) -> list[Mix]:
        self.step("preparing everything", 100)
        every = [mix(name, precision) for name in SETS for precision in (WIDE, NARROW)]
        return [each for each in every if sets is None or each.part_set in sets]

    def fitting(self, mixes: Sequence[Mix]) -> list[Fitted]:
        if self.rejected.intersection(mixes):
            raise UnsupportedGraphError("the compiler rejects it")
        fits = [each for each in mixes if each not in self.too_large]
        if not fits:
            raise InfeasibleError("nothing fits", 2)
        return [Fitted(each, Placement(), Peak(Role.DENOISER, {}, 0), 1, 0) for each in fits]

    def select(
        self,
        toolchain: Any,
        possible: Sequence[Mix],
        fitted: Sequence[Fitted],
        settings: SelectionSettings,
    ) -> Selected:
        self.step(f"drawing {len(fitted)}", 10)
        most = (settings.rules or self.toolchain.request.rules).most
        self.most.append(most)
        is_cut = self.cut_race and len(self.most) > len(SETS) + 1
        self.deadline.is_up |= is_cut
        race = RaceResult(len(fitted) - 1, (), 0, is_cut=is_cut)
        result = SelectionResult(tuple(fitted), race, None, 0, Rules())
        drawn = {each.mix: most for each in fitted}
        evaluator = SimpleNamespace(
            runner=SimpleNamespace(drawn=0),
            drawn=drawn,
            scores_of=lambda mix, prompts: scores_of(mix.part_set, prompts),
        )
        return Selected(cast(Any, evaluator), result)

    def step(self, doing: str, seconds: float) -> None:
        self.time += seconds
        self.say(doing)

    def choose(self) -> SelectionResult:
        mixes = SimpleNamespace(
            toolchain=self.toolchain,
            uniform=self.uniform,
            mixed=lambda uniform: self.mixed,
            fitting=self.fitting,
        )
        return TimedChoice(cast(Any, mixes), self.deadline).choose().result


def scores_of(parts: PartSet, prompts: int) -> Float64Array:
    """Scores that differ only in their means; the large set is clearly the worst."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(64)
    means = {"large": 0.1, "medium": 0.395, "small": 0.4}
    return np.asarray(noise + means[parts.candidates[0][1]])[:prompts]


def left_out(result: SelectionResult) -> tuple[str, ...]:
    assert result.time_limit is not None
    assert result.time_limit.is_complete is not bool(result.time_limit.left_out)
    return result.time_limit.left_out


def test_with_enough_time_everything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build(monkeypatch, 1000)
    build.mixed = [mix("large", Precision.MIXED)]
    result = build.choose()
    assert left_out(result) == ()
    assert not result.is_hurried
    assert len(result.fitted) == 7
    assert build.most == [16, 16, 16, 64, 64, 64]


def test_sets_that_are_beaten_in_fp32_get_no_other_precisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(monkeypatch, 1000)

    def draw(sets: Sequence[PartSet], numbers: Sequence[int]) -> Float64Array:
        return np.array([scores_of(parts, 64)[list(numbers)] for parts in sets])

    sets = [mix(name, WIDE).part_set for name in SETS]
    build.preselection = Preselection(sets, draw, build.toolchain.request.rules)
    build.preselection.run()
    result = build.choose()
    assert {fitted.mix.denoiser.candidate for fitted in result.fitted} == {"medium", "small"}
    assert left_out(result) == ()
    assert result.preselected is not None
    assert [str(each.parts) for each in result.preselected.beaten] == ["large"]


def test_if_the_time_is_up_before_other_precisions_all_sets_took_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(monkeypatch, 110)

    def draw(sets: Sequence[PartSet], numbers: Sequence[int]) -> Float64Array:
        return np.array([scores_of(parts, 64)[list(numbers)] for parts in sets])

    sets = [mix(name, WIDE).part_set for name in SETS]
    build.preselection = Preselection(sets, draw, build.toolchain.request.rules)
    build.preselection.run()
    result = build.choose()
    assert left_out(result) == ("other precisions", "mixed variants")
    assert len(result.fitted) == len(SETS)
    assert result.preselected is None


def test_the_set_of_the_best_mix_is_kept_and_its_rivals_return(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last set wins here; in fp32, its images are broken, and those of another are better."""
    build = Build(monkeypatch, 1000)
    broken = mix("small", WIDE).part_set

    def draw(sets: Sequence[PartSet], numbers: Sequence[int]) -> Float64Array:
        rows = [scores_of(parts, 64)[list(numbers)] for parts in sets]
        return np.array(
            [
                np.full(len(numbers), -1.0) if p == broken else r
                for p, r in zip(sets, rows, strict=True)
            ]
        )

    sets = [mix(name, WIDE).part_set for name in SETS]
    build.preselection = Preselection(sets, draw, build.toolchain.request.rules)
    build.preselection.run()
    result = build.choose()
    assert result.winner.mix.part_set == broken
    assert result.preselected is not None
    assert [str(each.parts) for each in result.preselected.beaten] == ["large"]


def test_likely_winners_come_first_and_the_rest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build(monkeypatch, 45)
    result = build.choose()
    assert [fitted.mix for fitted in result.fitted] == [mix("large", WIDE), mix("medium", WIDE)]
    assert left_out(result) == ("1 of 3 sets of parts", "other precisions", "mixed variants")
    assert result.is_hurried
    assert build.time < 60


def test_a_result_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    result = Build(monkeypatch, 1).choose()
    assert [fitted.mix for fitted in result.fitted] == [mix("large", WIDE)]
    assert left_out(result)[0] == "2 of 3 sets of parts"


def test_other_precisions_are_left_out_if_they_take_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = Build(monkeypatch, 110).choose()
    assert len(result.fitted) == len(SETS)
    assert left_out(result) == ("other precisions", "mixed variants")


def test_a_race_that_is_cut_before_other_precisions_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(monkeypatch, 1000)
    drawn = build.select

    def cut(*args: Any) -> Selected:
        selected = drawn(*args)
        if len(build.most) == len(SETS) + 1:
            build.deadline.is_up = True
        return selected

    monkeypatch.setattr(module, "select", cut)
    result = build.choose()
    assert build.most == [16, 16, 16, 64]
    assert left_out(result) == ("other precisions", "mixed variants")


def test_a_race_that_is_cut_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build(monkeypatch, 1000)
    build.cut_race = True
    result = build.choose()
    assert len(result.fitted) == 6
    assert left_out(result) == ("mixed variants", "rounds of the race")


def test_a_set_is_tried_in_the_widest_precision_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build(monkeypatch, 65)
    build.too_large = {mix("large", WIDE), mix("large", NARROW)}
    build.rejected = {mix("medium", WIDE)}
    result = build.choose()
    assert [fitted.mix for fitted in result.fitted] == [mix("medium", NARROW)]


def test_a_complete_build_writes_its_bundle_whatever_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(monkeypatch, 1000)
    build.choose()
    build.time += 5000
    build.say("writing the bundle")


def test_a_mix_that_is_too_slow_makes_room_for_a_narrower_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(monkeypatch, 45)
    build.toolchain.request.latency_limit_s = 1.0

    class Latencies:
        @classmethod
        def of_toolchain(cls, toolchain: Any) -> Latencies:
            return cls()

        def within(self, every: Sequence[Fitted], limit_s: float) -> list[Fitted]:
            if every[0].mix.denoiser.precision is WIDE:
                raise TooSlowError("too slow", 2.0)
            return list(every)

    monkeypatch.setattr(module, "Latencies", Latencies)
    result = build.choose()
    assert {fitted.mix.denoiser.precision for fitted in result.fitted} == {NARROW}
    assert left_out(result)


def test_mixed_variants_are_tried_where_uniform_ones_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = Build(monkeypatch, 1000)
    build.too_large = {mix(name, precision) for name in SETS for precision in (WIDE, NARROW)}
    with pytest.raises(InfeasibleError):
        build.choose()
    build = Build(monkeypatch, 1000)
    build.too_large = {mix(name, precision) for name in SETS for precision in (WIDE, NARROW)}
    build.mixed = [mix("large", Precision.MIXED)]
    result = build.choose()
    assert [fitted.mix for fitted in result.fitted] == build.mixed
    assert left_out(result) == ()
