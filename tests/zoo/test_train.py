from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sdpack.export.bridge import BridgeModule
from torch import nn

from zoo import autoencoder, data, denoiser, parts, prompts, train
from zoo.data import Dataset, Row


def dataset(labels: int = 30) -> Dataset:
    rows = data.assign_splits(
        Row(f"{n:X}", style, f"thing {n}", ("key", "word"), "objects", "tool")
        for n in range(labels)
        for style in data.STYLES
    )
    images = np.random.default_rng(0).integers(256, size=(len(rows), 64, 64, 3), dtype=np.uint8)
    return Dataset(tuple(rows), images)


def test_an_unknown_recipe_is_a_usage_error() -> None:
    result = CliRunner().invoke(train.main, ["--recipe", "tpu"])
    assert result.exit_code == 2
    assert "'cpu'" in result.output


def test_no_held_out_picture_is_asked_for_in_training(tmp_path: Path) -> None:
    training = train.Training(train.CPU, tmp_path, torch.device("cpu"))
    training.dataset = dataset()
    asked = set(training.training_texts)
    unseen = [r for r in training.dataset.rows if r.split != "train"]
    assert unseen
    assert not asked & {prompts.prompt_text(r.caption, r.style) for r in unseen}


def test_prompt_files_are_written_with_their_pictures(tmp_path: Path) -> None:
    many = dataset(120)
    train.write_prompts(many, tmp_path)
    first = prompts.read_list("unseen_pairs", tmp_path)[0]
    from zoo import evaluate

    index = next(
        i for i, r in enumerate(many.rows) if (r.code, r.style) == (first.code, first.style)
    )
    assert (evaluate.read_real("unseen_pairs", tmp_path)[0].numpy() == many.images[index]).all()


class Oracle(nn.Module):
    """Knows the clean latents, so its velocity is exact."""

    def __init__(self, clean: torch.Tensor, alphas: torch.Tensor) -> None:
        super().__init__()
        self.clean, self.alphas = clean, alphas

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, states: object, n: int) -> torch.Tensor:
        kept = self.alphas[t].sqrt()[:, None, None, None]
        lost = (1 - self.alphas[t]).sqrt()[:, None, None, None]
        noise = (noisy - kept * self.clean) / lost
        return kept * noise - lost * self.clean


def oracle(clean: torch.Tensor, alphas: torch.Tensor) -> denoiser.Pairs:
    return cast(denoiser.Pairs, Oracle(clean, alphas))


def test_the_exact_velocity_has_no_loss() -> None:
    alphas = denoiser.new_scheduler().alphas_cumprod
    clean = torch.randn(64, 16, 8, 8)
    texts = [denoiser.Texts(torch.zeros(1, 16, 4), torch.zeros(1, 16, 4))] * 3
    batch = denoiser.Batch(clean, torch.zeros(64, dtype=torch.long), torch.zeros(64).bool())
    g = torch.Generator().manual_seed(0)
    exact = denoiser.velocity_loss(oracle(clean, alphas), alphas, batch, texts, g)
    assert exact < 1e-4
    blind = oracle(torch.zeros_like(clean), alphas)
    g = torch.Generator().manual_seed(0)
    ignorant = denoiser.velocity_loss(blind, alphas, batch, texts, g)
    assert ignorant > 0.3


def test_a_dropped_text_is_the_empty_one() -> None:
    texts = denoiser.Texts(torch.arange(6.0).reshape(2, 3, 1).half(), torch.full((1, 3, 1), -1.0))
    seen = texts.batch(torch.tensor([1, 0]), torch.tensor([False, True]))
    assert seen[..., 0].tolist() == [[3.0, 4.0, 5.0], [-1.0, -1.0, -1.0]]


def kept(*steps: int) -> dict[str, dict[str, object]]:
    return {
        f"denoiser-s-{n}": {"schedule": asdict(round_of(count))} for n, count in enumerate(steps, 1)
    }


def round_of(steps: int, moved: float = 0.0) -> train.Round:
    return train.Round(steps=steps, batch_size=8, lr=0.1, moved=moved)


@pytest.mark.parametrize("moved", [0.0, 0.25, 1.0])
def test_a_share_of_each_batch_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: float
) -> None:
    training = train.Training(train.CPU, tmp_path, torch.device("cpu"))
    training.dataset = dataset()
    rows = len(training.dataset.rows)
    training.latents = torch.zeros(rows, 16, 8, 8)
    training.moved_latents = [torch.ones(rows, 16, 8, 8), torch.ones(rows, 16, 8, 8)]
    nothing = denoiser.Texts(torch.zeros(1, 16, 4), torch.zeros(1, 16, 4))
    monkeypatch.setattr(training, "text_states", lambda size: nothing)
    seen: list[torch.Tensor] = []

    def capture(pairs: object, alphas: object, batch: denoiser.Batch, *_: object) -> torch.Tensor:
        seen.append(batch.latents)
        return torch.zeros(())

    monkeypatch.setattr(denoiser, "velocity_loss", capture)
    untrained = cast(denoiser.Pairs, nn.Module())
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
    recipe = replace(train.CPU, denoiser={"s": (round_of(5), round_of(6))})
    training = train.Training(recipe, tmp_path, torch.device("cpu"), kept(*shipped))
    assert training.kept_rounds("s") == rounds


def test_latents_of_another_encoder_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    seen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        training = train.Training(train.CPU, tmp_path, torch.device("cpu"))
        training.dataset = dataset(1)
        training.vae = autoencoder.new_kl().eval()
        seen.append(training.latents)
    assert seen[0].shape == seen[1].shape == (6, 16, 8, 8)
    assert not torch.equal(*seen)


class Ready(train.Shipment):
    """Stages that end at once, so that only the writing is tried."""

    def _train(self) -> dict[str, object]:
        if self.training.device.type == "meta":
            raise KeyboardInterrupt
        return {"bridge/s-s": BridgeModule(4, 4), "decoder/tiny": autoencoder.new_tiny()}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parts_are_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(train, "write_prompts", lambda dataset: None)
    training = train.Training(train.CPU, tmp_path / "run", torch.device(device))
    training.dataset = dataset(2)
    training.tokenizer = parts.load_tokenizer()
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "old").write_text("part")
    if device == "meta":
        with pytest.raises(KeyboardInterrupt):
            Ready(training, folder).write()
        assert [p.name for p in folder.iterdir()] == ["old"]
    else:
        Ready(training, folder).write()
        assert not (folder / "old").exists()
        assert parts.load_bridge("s", "s", folder).into.in_features == 4
        parts.load_decoder("tiny", folder)
