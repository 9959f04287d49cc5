"""Screening of synthetic scores whose parts add up, nearly add up, or break."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sdpack.documents.catalog_files import default_catalog
from sdpack.domain.precision import Precision
from sdpack.evaluate.rules import BROKEN_SCORE, Arm, Rules
from sdpack.pack.planning.mix import Mix, mixes
from sdpack.pack.selection.screening import Screener, references

PRECISIONS = (Precision.FP16, Precision.W8, Precision.W4)
WORTH = {"s": 0.0, "m": 0.1, "l": 0.2, "kl": 0.05, "tiny": 0.0}
LOSS = {Precision.FP16: 0.0, Precision.W8: 0.002, Precision.W4: 0.05}
EVERY = list(mixes(default_catalog().catalog, PRECISIONS))
RULES = Rules(first=16, most=64)


class EvaluationRunner:
    """Scores that add up over the parts, except for `entangled`; it records what is drawn."""

    def __init__(self, entangled: float = 0.0, noise: float = 0.05) -> None:
        rng = np.random.default_rng(0)
        self.prompts = rng.normal(0, 0.2, RULES.most)
        self.taste = {name: rng.normal(0, noise, RULES.most) for name in WORTH}
        self.rough = {p: rng.normal(0, LOSS[p] / 2, RULES.most) for p in PRECISIONS}
        self.entangled = {mix: entangled * rng.choice([-1, 1]) for mix in EVERY}
        self.drawn: set[tuple[Mix, int]] = set()
        self.broken: set[Mix] = set()

    def truth(self, mix: Mix) -> float:
        worth = sum(WORTH[v.candidate] - LOSS[v.precision] for v in mix.variants)
        return worth + float(self.entangled[mix])

    def __call__(self, mixes: Sequence[Mix], prompts: Sequence[int]) -> NDArray[np.float64]:
        numbers = list(prompts)
        self.drawn |= {(mix, number) for mix in mixes for number in numbers}
        return np.array([self._score(mix)[numbers] for mix in mixes])

    def _score(self, mix: Mix) -> NDArray[np.float64]:
        if mix in self.broken:
            return np.full(RULES.most, BROKEN_SCORE)
        luck = sum(self.taste[v.candidate] + self.rough[v.precision] for v in mix.variants)
        return np.asarray(self.truth(mix) + self.prompts + luck)


def weight(mix: Mix) -> int:
    size = {"s": 1, "m": 2, "l": 4, "kl": 2, "tiny": 1}
    bits = {Precision.FP16: 16, Precision.W8: 8, Precision.W4: 4}
    return sum(size[v.candidate] * bits[v.precision] for v in mix.variants)


def screen(runner: EvaluationRunner) -> Screener:
    by_class = references(EVERY, weight, lambda mixes: [mix not in runner.broken for mix in mixes])
    return Screener(EVERY, by_class, frozenset(EVERY), runner)


ARMS = [Arm(str(mix), (weight(mix),)) for mix in EVERY]


def test_scores_that_add_up_are_predicted_exactly_from_a_fraction_of_the_images() -> None:
    runner = EvaluationRunner()
    prompts = range(16)
    predicted = screen(runner).scores(range(len(EVERY)), prompts)
    assert len(runner.drawn) < 0.2 * len(EVERY) * len(prompts)
    assert np.allclose(predicted, runner(EVERY, prompts), atol=1e-9)


def test_one_of_the_best_mixes_is_a_finalist() -> None:
    runner = EvaluationRunner()
    screened = screen(runner).run(ARMS, RULES, few=24)
    assert len(screened.finalists) <= 24
    best = max(range(len(EVERY)), key=lambda n: runner.truth(EVERY[n]))
    close = {
        n for n in range(len(EVERY)) if runner.truth(EVERY[n]) > runner.truth(EVERY[best]) - 0.01
    }
    assert close & set(screened.finalists)
    assert screened.error < 1e-9
    assert screened.checked == 12


@pytest.mark.parametrize("entangled", [0.01, 0.03])
def test_the_error_of_scores_that_do_not_add_up_is_measured(entangled: float) -> None:
    screened = screen(EvaluationRunner(entangled)).run(ARMS, RULES, few=24)
    assert entangled <= screened.error <= 6.001 * entangled


def test_a_broken_reference_is_replaced_by_the_next_heaviest() -> None:
    runner = EvaluationRunner()
    (largest,) = (each for each in screen(runner).references if each[0] == "l")
    first = screen(runner).references[largest]
    runner.broken = {mix for mix in EVERY if mix.decoder == first.decoder}
    second = screen(runner).references[largest]
    assert second not in runner.broken
    assert second.text_encoder == first.text_encoder


def test_a_mix_with_a_broken_part_is_predicted_to_be_broken() -> None:
    runner = EvaluationRunner()
    broken = {v for mix in EVERY for v in [mix.decoder] if v.precision is Precision.W4}
    runner.broken = {mix for mix in EVERY if mix.decoder in broken}
    predicted = screen(runner).scores(range(len(EVERY)), range(4))
    for mix, scores in zip(EVERY, predicted, strict=True):
        assert (scores == BROKEN_SCORE).all() == (mix.decoder in broken)


def test_the_reference_is_the_heaviest_mix_with_its_denoiser() -> None:
    by_class = references(EVERY, weight, lambda mixes: [True] * len(mixes))
    assert {name for name, _ in by_class} == {"s", "m", "l"}
    for (name, roles), mix in by_class.items():
        assert roles == mix.roles
        assert str(mix) == f"l/fp16 + {name}/fp16 + kl/fp16"


def test_the_number_of_steps_is_screened_like_a_part() -> None:
    few = {"s": (4, 16), "m": (None,), "l": (None,)}
    every = list(mixes(default_catalog().catalog, PRECISIONS, few.__getitem__))
    drawn: set[Mix] = set()

    def draw(mixes: Sequence[Mix], prompts: Sequence[int]) -> NDArray[np.float64]:
        drawn.update(mixes)
        return np.array([[worth(mix)] * len(prompts) for mix in mixes])

    def worth(mix: Mix) -> float:
        parts = sum(WORTH[v.candidate] - LOSS[v.precision] for v in mix.variants)
        return parts - (0.1 if mix.steps == 4 else 0.0)

    by_class = references(every, weight, lambda mixes: [True] * len(mixes))
    small = next(mix for name, mix in by_class.items() if name[0] == "s")
    assert small.steps == 16
    screener = Screener(every, by_class, frozenset(every), draw)
    predicted = screener.scores(range(len(every)), range(2))
    assert np.allclose(predicted[:, 0], [worth(mix) for mix in every])
    assert sum(mix.steps == 4 for mix in drawn) == 1
