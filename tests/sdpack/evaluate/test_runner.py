"""The runner with made-up parts, so that what is shared can be counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sdpack.documents.conditioning import Conditioning
from sdpack.domain.latents import LatentSpace
from sdpack.domain.placement import Placement, Role
from sdpack.engines.session import Session
from sdpack.evaluate.metrics import Panel
from sdpack.evaluate.open_parts import OPEN_BYTES
from sdpack.evaluate.pipeline_spec import (
    EvaluationSet,
    LoadablePart,
    PipelineSpec,
    SamplingConfig,
)
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.evaluate.scorers import Judged, panel_score
from sdpack.runtime.pipeline import Pipeline
from sdpack.runtime.sampler import SamplerTable
from sdpack.runtime.tokenizer import PromptTokenizer
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger

TOKENIZER = PromptTokenizer(Path(__file__).parents[3] / "zoo" / "parts" / "tokenizer")
TABLE = SamplerTable(
    "made up", 1, np.array([500.0]), np.array([[1.0, 0.0]]), np.array([[0.5, 0.3]]), draws=0
)
LATENTS = LatentSpace(channels=4, scaling_factor=1.0, shift_factor=0.0, pixels=8)
PROMPTS = [f"noto, thing {n}" for n in range(40)]
TASK = EvaluationSet(PROMPTS, 16, 16)
ROLES = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)


class Part:
    """A part whose output depends on its gain; rows it worked on are counted under its name."""

    def __init__(self, role: Role, name: str, gain: float, counts: Counter[str]) -> None:
        self.role, self.name, self.gain, self.counts = role, name, gain, counts

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        first = next(iter(inputs.values()))
        self.counts[self.name] += len(first)
        if self.role is Role.TEXT_ENCODER:
            return {"last_hidden_state": self.gain * first[..., None].astype(np.float32) / 3000}
        if self.role is Role.DENOISER:
            said = inputs["encoder_hidden_states"].mean((1, 2))[:, None, None, None]
            return {"out_sample": self.gain * first + said}
        return {"sample": np.tanh(self.gain * first[:, :3].repeat(8, -1).repeat(8, -2))}

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class BrightPanel(Panel):
    """A judge to whom brightness is everything."""

    def __init__(self) -> None: ...

    def features(self, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
        return images.float().mean(dim=(1, 2, 3))[:, None] / 255

    def embed_features(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def embed_texts(self, texts: Any, batch_size: int = 512) -> torch.Tensor:
        return torch.ones(len(texts), 1)


def drawer(role: Role, name: str, gain: float, counts: Counter[str]) -> LoadablePart:
    tokenizer = TOKENIZER if role is Role.TEXT_ENCODER else None
    return LoadablePart(name, lambda: Part(role, name, gain, counts), tokenizer)


def spec(
    encoder: str, denoiser: str, decoder: str, counts: Counter[str], guidance_scale: float = 2.0
) -> PipelineSpec:
    gains = {"a": 1.0, "b": 0.7, "broken": float("nan"), "flat": 0.0}
    names = (encoder, denoiser, decoder)
    parts = {
        role: drawer(role, f"{role} {name}", gains[name], counts)
        for role, name in zip(ROLES, names, strict=True)
    }
    return PipelineSpec(parts, SamplingConfig(TABLE, Conditioning(), guidance_scale), LATENTS)


def runner(folder: Path, task: EvaluationSet = TASK) -> EvaluationRunner:
    return EvaluationRunner(
        task,
        Judged(panel_score(BrightPanel()), "judge"),
        Store(folder / "store"),
        Ledger(folder / "ledger.sqlite"),
        "here",
    )


def test_shared_work_is_done_once(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    mixes = [spec(e, d, v, counts) for e in "ab" for d in "ab" for v in "ab"]
    scores = runner(tmp_path).scores(mixes, range(20))
    assert scores.shape == (8, 20)
    assert counts["text_encoder a"] == 2 * (16 + 1)  # two groups, each with the negative prompt
    assert counts["denoiser a"] == 2 * (2 * 20)  # two encoders, both halves of guidance
    assert counts["decoder a"] == 4 * 20


class Closing(Part):
    """A part that says when it is closed."""

    log: list[str]

    def close(self) -> None:
        self.log.append(self.name)


@pytest.mark.parametrize("large", [False, True])
def test_a_large_part_is_not_open_beside_others(tmp_path: Path, large: bool) -> None:
    counts: Counter[str] = Counter()
    log: list[str] = []

    def part(role: Role) -> Session:
        made = Closing(role, role.value, 1.0, counts)
        made.log = log
        return made

    def opened(role: Role) -> LoadablePart:
        takes = OPEN_BYTES if large and role is Role.DENOISER else 1
        tokenizer = TOKENIZER if role is Role.TEXT_ENCODER else None
        return LoadablePart(role.value, partial(part, role), tokenizer, takes)

    parts = {role: opened(role) for role in ROLES}
    mix = PipelineSpec(parts, SamplingConfig(TABLE, Conditioning(), 2.0), LATENTS)
    drawing = runner(tmp_path)
    drawing.pictures(mix, [0])
    assert log == (["text_encoder", "denoiser"] if large else [])
    drawing.on(EvaluationSet(["another"], 64, 64)).pictures(mix, [0])
    assert len(log) == (5 if large else 0), "all of a studio's tasks share what is open"
    log.clear()
    drawing.times(mix, Placement(), 2, slow_s=100)
    assert log == (["decoder", "text_encoder", "denoiser"] * 2 if large else [])


def test_opening_parts_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: clock)

    class Slow(Part):
        def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            nonlocal clock
            clock += 1
            return super().run(inputs)

    def part(role: Role) -> Session:
        nonlocal clock
        clock += 100
        return Slow(role, role.value, 1.0, Counter())

    tokenizers = {Role.TEXT_ENCODER: TOKENIZER}
    takes = {Role.DENOISER: OPEN_BYTES}  # so that it is opened again for every picture
    parts = {
        role: LoadablePart(
            role.value, partial(part, role), tokenizers.get(role), takes.get(role, 1)
        )
        for role in ROLES
    }
    mix = PipelineSpec(parts, SamplingConfig(TABLE, Conditioning(), 2.0), LATENTS)
    once = runner(tmp_path).times(mix, Placement(), 1, slow_s=100)[0]
    assert 3 <= once < 100
    assert runner(tmp_path).times(mix, Placement(), 3, slow_s=100) == [once] * 3
    assert runner(tmp_path).times(mix, Placement(), 3, slow_s=once / 2) == [once]


def test_a_second_run_draws_nothing(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    mixes = [spec("a", "a", v, counts) for v in "ab"]
    first = runner(tmp_path).scores(mixes, range(20))
    before = counts.copy()
    again = runner(tmp_path)
    assert np.array_equal(again.scores(mixes, range(20)), first)
    assert again.drawn == 0
    assert counts == before


def test_a_picture_does_not_depend_on_the_round_it_was_drawn_in(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    mix = spec("a", "b", "a", counts)
    whole = runner(tmp_path / "1").scores([mix], range(40))[0]
    halves = runner(tmp_path / "2")
    parts = [halves.scores([mix], range(*ends))[0] for ends in ((0, 16), (16, 40))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_broken_pictures_score_below_every_other_and_do_not_stop_the_race(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    mixes = [spec("a", "a", v, counts) for v in ("a", "broken", "flat")]
    scores = runner(tmp_path).scores(mixes, range(4))
    assert (scores[0] >= 0).all()
    assert (scores[1:] == -1).all()


def test_another_task_shares_nothing(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    runner(tmp_path).scores([spec("a", "a", "a", counts)], range(4))
    again = runner(tmp_path)
    again.scores([spec("a", "a", "a", counts, guidance_scale=3.0)], range(4))
    assert again.drawn == 4
    other = runner(tmp_path, EvaluationSet(PROMPTS, 24, 16))
    other.scores([spec("a", "a", "a", counts)], range(4))
    assert other.drawn == 4


def test_a_large_denoiser_is_opened_once_for_all_text_encoders(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    opened: Counter[str] = Counter()

    def part(role: Role, name: str) -> Session:
        opened[name] += 1
        return Part(role, name, 0.7, counts)

    def mix(encoder: str) -> PipelineSpec:
        parts = {
            Role.TEXT_ENCODER: LoadablePart(
                encoder, partial(part, Role.TEXT_ENCODER, encoder), TOKENIZER, 1
            ),
            Role.DENOISER: LoadablePart("u", partial(part, Role.DENOISER, "u"), None, OPEN_BYTES),
            Role.DECODER: LoadablePart("v", partial(part, Role.DECODER, "v"), None, 1),
        }
        return PipelineSpec(parts, SamplingConfig(TABLE, Conditioning(), 2.0), LATENTS)

    runner(tmp_path).scores([mix("a"), mix("b"), mix("c")], [0])
    assert opened == {"a": 1, "b": 1, "c": 1, "u": 1, "v": 1}


@pytest.mark.parametrize(("side", "decoded"), [(128, 3 + 3 + 2), (256, 3)])
def test_large_pictures_are_kept(tmp_path: Path, side: int, decoded: int) -> None:
    counts: Counter[str] = Counter()
    drawing, mix = runner(tmp_path, EvaluationSet(PROMPTS, side, side)), spec("a", "a", "a", counts)
    first, again = (drawing.pictures(mix, range(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(drawing.pictures(mix, range(3), 2), first[:2])
    assert counts["decoder a"] == decoded


def test_decoders_that_enlarge_differently_share_no_latents(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    usual = spec("a", "a", "a", counts)
    wider = replace(usual, latents=replace(LATENTS, pixels=4))
    drawn = runner(tmp_path)
    side = TASK.height // 8
    assert drawn.latents(usual, [0]).shape == (1, 4, side, side)
    assert drawn.latents(wider, [0]).shape == (1, 4, 2 * side, 2 * side)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("zero_empty", [False, True])
@pytest.mark.parametrize("negative_prompt", ["", "noto, thing 3"])
def test_the_runner_draws_as_the_pipeline_does(
    tmp_path: Path, guidance_scale: float, zero_empty: bool, negative_prompt: str
) -> None:
    counts: Counter[str] = Counter()
    recipe = SamplingConfig(
        TABLE, Conditioning(zero_empty=zero_empty), guidance_scale, negative_prompt=negative_prompt
    )
    mix = replace(spec("a", "b", "a", counts), recipe=recipe)
    pipeline = Pipeline(
        {role: part.load for role, part in mix.parts.items()},
        {Role.TEXT_ENCODER: TOKENIZER},
        lambda _: TABLE,
        LATENTS,
        conditioning=recipe.conditioning,
    )
    drawn = runner(tmp_path).pictures(mix, range(3))
    assert np.array_equal(drawn, pipeline.draw(TASK.request(range(3), recipe)))
