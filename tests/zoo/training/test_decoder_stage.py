from __future__ import annotations

from pathlib import Path

import torch

from tests.zoo.rows import random_dataset
from zoo.training import autoencoder
from zoo.training.recipes import CPU
from zoo.training.run import TrainingRun
from zoo.training.stages import Stages


def test_latents_of_another_encoder_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    seen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        run = TrainingRun(CPU, tmp_path, torch.device("cpu"))
        run.dataset = random_dataset(1)
        stage = Stages.of(run).decoders
        stage.vae = autoencoder.new_kl().eval()
        seen.append(stage.latents)
    assert seen[0].shape == seen[1].shape == (6, 16, 8, 8)
    assert not torch.equal(*seen)
