"""Scores of pictures of a stand-in for the runner, which draws what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sdpack.documents.conditioning import Conditioning
from sdpack.documents.record import FIDELITY, SIMILARITY
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Role
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.pipeline_spec import (
    EvaluationSet,
    LoadablePart,
    PipelineSpec,
    SamplingConfig,
)
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.evaluate.scorers import Faithful, Judged, panel_score
from sdpack.runtime.pipeline import Pictures
from sdpack.runtime.sampler import SamplerTable

TABLE = SamplerTable("one step", 1, np.zeros(1), np.zeros((1, 2)), np.zeros((1, 2)), 0)
RNG = np.random.default_rng(0)
DRAWN: Pictures = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8)


def spec(content: str) -> PipelineSpec:
    def never() -> Any:
        raise AssertionError("no part is opened")

    part = LoadablePart(content, never)
    roles = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)
    recipe = SamplingConfig(TABLE, Conditioning(), 1.0)
    return PipelineSpec(
        dict.fromkeys(roles, part),
        recipe,
        LatentSpace(channels=4, pixels=8, scaling_factor=1.0, shift_factor=0.0),
    )


MIX = replace(spec("w4"), reference=spec("fp32"))


class Runner:
    """Draws the same pictures whatever the mix, and notes which prompts it drew them for."""

    def __init__(self) -> None:
        self.task = EvaluationSet([f"prompt {n}" for n in range(9)], 32, 32)
        self.asked: list[tuple[int, ...]] = []

    def pictures(self, mix: PipelineSpec, numbers: Sequence[int]) -> Pictures:
        assert mix is MIX.reference
        self.asked.append(tuple(numbers))
        return DRAWN[: len(numbers)]


def runner() -> tuple[EvaluationRunner, Runner]:
    made = Runner()
    return cast(EvaluationRunner, made), made


class LastDigit(Panel):
    """A picture points along the axis its first value names, a text along its number's parity."""

    def __init__(self) -> None: ...

    def features(self, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        return images[:, 0, 0, 0].long()

    def embed_features(self, features: torch.Tensor) -> torch.Tensor:
        return torch.eye(2)[features]

    def embed_texts(self, texts: Sequence[str], batch_size: int = 512) -> torch.Tensor:
        return torch.eye(2)[[int(text.split()[-1]) % 2 for text in texts]]


def test_a_judge_scores_each_picture_with_its_own_prompt() -> None:
    judged = Judged(panel_score(LastDigit()), "a judge")
    pictures = np.zeros((3, 4, 4, 3), np.uint8)
    pictures[2] = 1
    # Of prompts 4, 5 and 7 the first is even and the others odd; of the pictures the last is.
    assert judged.score(MIX, pictures, [4, 5, 7], runner()[0]) == [1.0, 0.0, 1.0]
    assert judged.metric == SIMILARITY
    assert judged.content(MIX) == judged.content(spec("other")) == "a judge"


def test_a_judge_of_prompts_is_given_these_in_place_of_captions() -> None:
    seen: list[str] = []

    def score(pictures: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        seen.extend(texts)
        return np.zeros(len(pictures))

    task = EvaluationSet(["ein Hund", "a cat"], 4, 4, captions=["a dog", "a cat"])
    drawing = cast(EvaluationRunner, SimpleNamespace(task=task))
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    Judged(score, "a judge").score(MIX, pictures, [0, 1], drawing)
    reader = Judged(score, "a reader", "text", reads_captions=False)
    reader.score(MIX, pictures, [0, 1], drawing)
    assert seen == ["a dog", "a cat", "ein Hund", "a cat"]
    assert (reader.metric, reader.reads_captions) == ("text", False)


def test_the_fp32_pictures_score_one_and_noise_scores_low() -> None:
    faithful, (drawing, _) = Faithful(), runner()
    assert faithful.score(MIX, DRAWN, [0, 1, 2], drawing) == pytest.approx([1, 1, 1])
    noise = RNG.integers(0, 256, DRAWN.shape, np.uint8)
    assert max(faithful.score(MIX, noise, [0, 1, 2], drawing)) < 0.2
    assert faithful.metric == FIDELITY


def test_the_fp32_pictures_are_drawn_once_for_consecutive_mixes() -> None:
    faithful, (drawing, made) = Faithful(), runner()
    for numbers in ([0, 1], [0, 1], [2, 3], [2, 3]):
        faithful.score(MIX, DRAWN[:2], numbers, drawing)
    assert made.asked == [(0, 1), (2, 3)]


def test_fidelity_depends_on_what_it_is_measured_against() -> None:
    faithful = Faithful()
    other = replace(MIX, reference=spec("another fp32"))
    assert faithful.content(MIX) == faithful.content(replace(spec("w8"), reference=spec("fp32")))
    assert faithful.content(MIX) != faithful.content(other)
