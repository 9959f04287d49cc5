"""The choice among sets of parts that are only names, with given scores."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.domain.arrays import Float64Array
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import EngineError, InfeasibleError, UnsupportedGraphError
from sdpack.evaluate.rules import RaceResult, Rules
from sdpack.memory.predict import Peak
from sdpack.pack.latency.select import Selected
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix, PartSet, Variant
from sdpack.pack.preselection import choose as module
from sdpack.pack.preselection.choose import SetChoice
from sdpack.pack.preselection.preselect import Preselection
from sdpack.pack.selection.selection import SelectionResult

MOST = 64


def mix(name: str, precision: Precision = Precision.FP16) -> Mix:
    return Mix.of(Variant(Role.DENOISER, name, precision))


class Request:
    """Sets of parts with their scores in fp32, and in the precision that fits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fp32: dict[str, float]) -> None:
        self.fp32, self.fitting_scores = fp32, dict(fp32)
        self.too_large: set[str] = set()
        self.built: list[list[str]] = []
        self.asked: list[list[str] | None] = []
        self.said: list[str] = []
        monkeypatch.setattr(module, "select", self.select)
        monkeypatch.setattr(module, "sets_in_fp32", self.sets_in_fp32)
        monkeypatch.setattr(module, "count_of_sets", lambda _: len(fp32))
        monkeypatch.setattr(module, "prepare_exports", lambda *_: None)
        monkeypatch.setattr(module, "MixEvaluator", lambda *_: self.evaluator)
        self.judging: Any = SimpleNamespace(is_judged=True)
        self.evaluator: Any = SimpleNamespace(
            judging=self.judging,
            rules=Rules(first=16, most=MOST),
            is_large=False,
            scores_in_fp32=self.scores_in_fp32,
            scores_of=lambda mix, prompts: self.scores(mix)[:prompts],
            drawn={mix(name): MOST for name in fp32},
            runner=None,
        )
        self.toolchain = SimpleNamespace(
            candidates=None, context=SimpleNamespace(say=self.said.append)
        )

    def sets_in_fp32(self, candidates: Any) -> dict[PartSet, Mix]:
        mixes = [mix(name, Precision.FP32) for name in self.fp32]
        return {each.part_set: each for each in mixes}

    def scores(self, each: Mix) -> Float64Array:
        """Scores that differ only in their means, so that any difference is certain."""
        means = self.fp32 if each.denoiser.precision is Precision.FP32 else self.fitting_scores
        noise = 0.1 * np.random.default_rng(0).standard_normal(MOST)
        return np.asarray(noise + means[each.denoiser.candidate])

    def scores_in_fp32(self, mixes: Sequence[Mix], numbers: Sequence[int]) -> Float64Array:
        return np.array([self.scores(each)[list(numbers)] for each in mixes])

    def uniform(self, sets: Sequence[PartSet] | None) -> list[Mix]:
        names = list(self.fp32) if sets is None else [s.candidates[0][1] for s in sets]
        self.built.append(names)
        self.asked.append(None if sets is None else names)
        return [mix(name) for name in names]

    def mixed(self, uniform: Sequence[Mix]) -> list[Mix]:
        return []

    def fitting(self, possible: Sequence[Mix]) -> list[Fitted]:
        fits = [each for each in possible if each.denoiser.candidate not in self.too_large]
        if not fits:
            raise InfeasibleError(f"none of {len(possible)} fits", 2)
        return [Fitted(each, Placement(), Peak(Role.DENOISER, {}, 0), 1, 0) for each in fits]

    def select(
        self, toolchain: Any, possible: Sequence[Mix], fitted: Sequence[Fitted], settings: Any
    ) -> Selected:
        best = max(range(len(fitted)), key=lambda n: self.scores(fitted[n].mix).mean())
        result = SelectionResult(tuple(fitted), RaceResult(best, (), 0), None, 0, Rules())
        return Selected(cast(Any, self.evaluator), result)

    def choose(self) -> SelectionResult:
        mixes = SimpleNamespace(
            toolchain=self.toolchain,
            uniform=self.uniform,
            mixed=self.mixed,
            fitting=self.fitting,
        )
        return SetChoice(cast(Any, mixes)).choose().result


def beaten(result: SelectionResult) -> list[str]:
    assert result.preselected is not None
    return [each.parts.candidates[0][1] for each in result.preselected.beaten]


def test_sets_that_cannot_win_are_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.395, "small": 0.1})
    result = request.choose()
    assert request.built == [["large", "medium"]]
    assert result.winner.mix == mix("large")
    assert beaten(result) == ["small"]
    assert result.preselected is not None
    assert result.preselected.pictures == MOST + MOST + 16


def test_if_the_best_sets_do_not_fit_the_next_ones_are_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.3, "small": 0.1})
    request.too_large = {"large"}
    result = request.choose()
    assert request.built == [["large"], ["large", "medium"]]
    assert result.winner.mix == mix("medium")
    assert beaten(result) == ["small"]


def test_a_set_returns_if_the_winner_lost_too_much_in_the_precision_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.3, "small": 0.1})
    request.fitting_scores["large"] = 0.2
    result = request.choose()
    assert request.built == [["large"], ["large", "medium"]]
    assert result.winner.mix == mix("medium")


def test_if_nothing_fits_every_set_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.3, "small": 0.1})
    request.too_large = set(request.fp32)
    with pytest.raises(InfeasibleError, match="none of 3 fits"):
        request.choose()
    assert request.built == [["large"], ["large", "medium"], list(request.fp32)]


def test_the_error_names_the_smallest_mix_even_of_sets_that_cannot_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.3})
    request.too_large = set(request.fp32)
    monkeypatch.setattr(module, "count_of_sets", lambda _: 3)  # one cannot fit by its size
    with pytest.raises(InfeasibleError):
        request.choose()
    assert request.built[-2:] == [["large", "medium"], ["large", "medium"]]
    assert request.asked[-2:] == [["large", "medium"], None]


def test_sets_that_cannot_be_built_do_not_cost_the_mix_that_was_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.3, "small": 0.1})
    request.fitting_scores["large"] = 0.2
    uniform = request.uniform

    def rejected(sets: Sequence[PartSet] | None) -> list[Mix]:
        mixes = uniform(sets)
        if len(mixes) > 1:
            raise UnsupportedGraphError("the compiler rejects it")
        return mixes

    monkeypatch.setattr(request, "uniform", rejected)
    assert request.choose().winner.mix == mix("large")
    assert "cannot be built: the compiler rejects it" in request.said[-1]


def test_what_does_not_run_in_fp32_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(monkeypatch, {"large": 0.4, "small": 0.1})

    def failing(mixes: Sequence[Mix], numbers: Sequence[int]) -> Float64Array:
        raise EngineError("the GPU has no memory left")

    request.evaluator.scores_in_fp32 = failing
    result = request.choose()
    assert request.built == [["large", "small"]]
    assert result.preselected is None
    assert "no memory left" in request.said[0]


@pytest.mark.parametrize("judged", [True, False])
def test_one_set_or_no_judge_leaves_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, judged: bool
) -> None:
    request = Request(monkeypatch, {"large": 0.4} if judged else {"large": 0.4, "small": 0.1})
    request.judging.is_judged = judged
    result = request.choose()
    assert request.built == [list(request.fp32)]
    assert result.preselected is None


def test_large_images_are_drawn_for_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(monkeypatch, {"large": 0.4, "medium": 0.395})
    request.evaluator.is_large = True
    sets = request.sets_in_fp32(None)
    preselection = module.preselect(cast(Any, request.toolchain), request.evaluator, sets)
    assert isinstance(preselection, Preselection)
    assert preselection.pictures == 2 * 16
