from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.zoo.rows import random_dataset
from zoo.data import prompts
from zoo.training import denoiser
from zoo.training.denoiser_stage import DenoiserStage
from zoo.training.recipes import CPU, Round, TrainingRecipe
from zoo.training.run import TrainingRun
from zoo.training.shipment import shipped_records
from zoo.training.stages import Stages

Kept = dict[str, dict[str, Any]]


def stage(folder: Path, recipe: TrainingRecipe = CPU, kept: Kept | None = None) -> DenoiserStage:
    run = TrainingRun(recipe, folder, torch.device("cpu"), kept or {})
    run.dataset = random_dataset()
    return Stages.of(run).denoisers


def kept(*steps: int) -> Kept:
    return {
        f"denoiser-s-{n}": {"schedule": asdict(round_of(count))} for n, count in enumerate(steps, 1)
    }


def round_of(steps: int, moved: float = 0.0) -> Round:
    return Round(steps=steps, batch_size=8, lr=0.1, moved=moved)


def test_no_held_out_image_is_asked_for_in_training(tmp_path: Path) -> None:
    training = stage(tmp_path)
    texts = set(training.training_texts)
    unseen = [row for row in training.run.dataset.rows if row.split != "train"]
    assert unseen
    assert not texts & {prompts.prompt_text(row.caption, row.style) for row in unseen}


@pytest.mark.parametrize("moved", [0.0, 0.25, 1.0])
def test_a_share_of_each_batch_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: float
) -> None:
    training = stage(tmp_path)
    rows = len(training.run.dataset.rows)
    training.decoders.latents = torch.zeros(rows, 16, 8, 8)
    training.decoders.moved_latents = [torch.ones(rows, 16, 8, 8), torch.ones(rows, 16, 8, 8)]
    nothing = denoiser.Texts(torch.zeros(1, 16, 4), torch.zeros(1, 16, 4))
    monkeypatch.setattr(training, "text_states", lambda size: nothing)
    seen: list[torch.Tensor] = []

    def capture(pairs: object, alphas: object, batch: denoiser.Batch, *_: object) -> torch.Tensor:
        seen.append(batch.latents)
        return torch.zeros(())

    monkeypatch.setattr(denoiser, "velocity_loss", capture)
    untrained: denoiser.Pairs = nn.Module()  # type: ignore[assignment]
    loss = training._denoiser_loss(untrained, round_of(5, moved))
    for step in range(100):
        loss(step, torch.Generator().manual_seed(step))
    assert float(torch.cat(seen).mean()) == pytest.approx(moved, abs=0.06)


@pytest.mark.parametrize(
    ("shipped", "rounds"),
    [((), 0), ((5,), 1), ((5, 6), 2), ((5, 7), 0), ((4,), 0), ((5, 6, 7), 0)],
)
def test_shipped_rounds_are_kept_only_if_all_are_the_recipe_s_first(
    tmp_path: Path, shipped: tuple[int, ...], rounds: int
) -> None:
    recipe = replace(CPU, denoiser={"s": (round_of(5), round_of(6))})
    assert stage(tmp_path, recipe, kept(*shipped)).kept_rounds("s") == rounds


def test_the_shipped_denoisers_contain_every_round_of_the_recipe(tmp_path: Path) -> None:
    denoisers = stage(tmp_path, CPU, shipped_records())
    found = {size: denoisers.kept_rounds(size) for size in CPU.denoiser}
    assert found == {size: len(rounds) for size, rounds in CPU.denoiser.items()}
