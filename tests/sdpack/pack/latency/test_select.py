"""The repeated selection where whole images take longer than their parts."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import TooSlowError
from sdpack.evaluate.rules import RaceResult, Rules
from sdpack.memory.predict import Peak
from sdpack.pack.latency import select as module
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.selection.selection import SelectionResult
from sdpack.progress import TimeIsUp

WHOLE_S = {"a": 2.0, "b": 0.5, "c": 0.1}


def fitted(name: str) -> Fitted:
    mix = Mix.of(Variant(Role.DENOISER, name, Precision.FP16))
    return Fitted(mix, Placement(), Peak(Role.DENOISER, {}, 0), 1, 0, expected_s=0.1)


class Evaluator:
    """Its winner is the first of its mixes."""

    runner = None
    rules = Rules()
    is_large = False
    judging = SimpleNamespace(others={})

    def __init__(self, toolchain: Any, possible: Any, fitted: Any, *_: Any) -> None:
        self.fitted = fitted

    def latency_s(self, number: int, always: bool = False) -> float | None:
        return WHOLE_S[self.fitted[number].mix.denoiser.candidate]


class Selection:
    is_cut = False

    def __init__(self, evaluator: Evaluator, *_: object) -> None:
        self.evaluator = evaluator

    def run(self) -> SelectionResult:
        race = RaceResult(0, (), 0, is_cut=self.is_cut)
        return SelectionResult(tuple(self.evaluator.fitted), race, None, 0, Rules())


class Latencies:
    def __init__(self, toolchain: Any, is_measured: bool) -> None:
        self.request = toolchain.request
        self.times = SimpleNamespace(is_measured=is_measured, where="here")

    def within(self, every: list[Fitted], limit_s: float) -> list[Fitted]:
        return list(every)

    def loading_s(self, one: Fitted) -> float:
        return 0.0

    def too_slow(self, timed: Sequence[Fitted], limit_s: float) -> TooSlowError:
        assert len(timed) == len(WHOLE_S)
        fastest = min(timed, key=lambda one: one.expected_s or 0)
        return TooSlowError(f"{fastest.mix} takes {fastest.expected_s}", fastest.expected_s or 0)


def select(
    monkeypatch: pytest.MonkeyPatch, limit_s: float | None, is_measured: bool = True
) -> SelectionResult:
    toolchain = SimpleNamespace(
        request=SimpleNamespace(latency_limit_s=limit_s),
        context=SimpleNamespace(say=lambda line: None),
    )
    monkeypatch.setattr(module, "MixEvaluator", Evaluator)
    monkeypatch.setattr(module, "Selection", Selection)
    latencies = Latencies(toolchain, is_measured)
    monkeypatch.setattr(
        module, "Latencies", SimpleNamespace(of_toolchain=lambda toolchain: latencies)
    )
    every = [fitted(name) for name in WHOLE_S]
    return module.select(cast(Any, toolchain), [], every).result


def test_a_winner_whose_whole_images_are_too_slow_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = select(monkeypatch, 1.0)
    assert result.winner.mix.denoiser.candidate == "b"
    assert result.limit is not None
    assert result.limit.whole_s == WHOLE_S["b"]
    assert result.winner.expected_s == 0.1
    assert (result.limit.left_out, result.limit.is_measured) == (1, True)


def test_predicted_times_stand_for_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    result = select(monkeypatch, 1.0, is_measured=False)
    assert result.winner.mix.denoiser.candidate == "a"
    assert result.limit is not None
    assert result.limit.whole_s is None
    assert result.limit.how == "predicted for here"


def test_without_a_limit_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    result = select(monkeypatch, None)
    assert result.limit is None
    assert result.winner.mix.denoiser.candidate == "a"


def test_if_all_whole_images_are_too_slow_the_build_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooSlowError, match="c/fp16"):
        select(monkeypatch, 0.01)


def test_a_cut_race_is_not_repeated_without_its_slow_winner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Selection, "is_cut", True)
    with pytest.raises(TimeIsUp):
        select(monkeypatch, 1.0)
    assert select(monkeypatch, 3.0).winner.mix.denoiser.candidate == "a"
