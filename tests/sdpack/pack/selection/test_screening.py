"""Screening on made-up scores: parts that add up, nearly add up, and break."""

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
    """Scores that add up over the parts but for `entangled`; pictures are counted."""

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

    def __call__(self, asked: Sequence[Mix], prompts: Sequence[int]) -> NDArray[np.float64]:
        numbers = list(prompts)
        self.drawn |= {(mix, number) for mix in asked for number in numbers}
        return np.array([self._score(mix)[numbers] for mix in asked])

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
    found = references(EVERY, weight, lambda mix: mix not in runner.broken)
    return Screener(EVERY, found, frozenset(EVERY), runner)


ARMS = [Arm(str(mix), (weight(mix),)) for mix in EVERY]


def test_scores_that_add_up_are_foretold_exactly_from_a_fraction_of_the_pictures() -> None:
    runner = EvaluationRunner()
    prompts = range(16)
    foretold = screen(runner).scores(range(len(EVERY)), prompts)
    assert len(runner.drawn) < 0.2 * len(EVERY) * len(prompts)
    assert np.allclose(foretold, runner(EVERY, prompts), atol=1e-9)


def test_the_best_goes_on() -> None:
    runner = EvaluationRunner()
    screened = screen(runner).run(ARMS, RULES, few=24)
    assert len(screened.left) <= 24
    best = max(range(len(EVERY)), key=lambda n: runner.truth(EVERY[n]))
    close = {
        n for n in range(len(EVERY)) if runner.truth(EVERY[n]) > runner.truth(EVERY[best]) - 0.01
    }
    assert close & set(screened.left)
    assert screened.error < 1e-9
    assert screened.checked == 12


@pytest.mark.parametrize("entangled", [0.01, 0.03])
def test_what_does_not_add_up_is_noticed(entangled: float) -> None:
    screened = screen(EvaluationRunner(entangled)).run(ARMS, RULES, few=24)
    assert entangled <= screened.error <= 6.001 * entangled


def test_a_broken_reference_gives_way_to_the_next() -> None:
    runner = EvaluationRunner()
    (kind,) = (kind for kind in screen(runner).references if kind[0] == "l")
    whole = screen(runner).references[kind]
    runner.broken = {mix for mix in EVERY if mix.decoder == whole.decoder}
    found = screen(runner).references[kind]
    assert found not in runner.broken
    assert found.text_encoder == whole.text_encoder


def test_a_mix_with_a_broken_part_is_foretold_to_be_broken() -> None:
    runner = EvaluationRunner()
    broken = {v for mix in EVERY for v in [mix.decoder] if v.precision is Precision.W4}
    runner.broken = {mix for mix in EVERY if mix.decoder in broken}
    foretold = screen(runner).scores(range(len(EVERY)), range(4))
    for mix, scores in zip(EVERY, foretold, strict=True):
        assert (scores == BROKEN_SCORE).all() == (mix.decoder in broken)


def test_the_reference_is_the_heaviest_of_its_denoiser() -> None:
    found = references(EVERY, weight, lambda _: True)
    assert {name for name, _ in found} == {"s", "m", "l"}
    for (name, roles), mix in found.items():
        assert roles == mix.roles
        assert str(mix) == f"l/fp16 + {name}/fp16 + kl/fp16"
