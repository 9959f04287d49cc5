from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sdpack.export.bridge import BridgeModule

from tests.zoo.rows import random_dataset
from zoo import parts
from zoo.data import prompts
from zoo.evaluation import evaluate
from zoo.training import autoencoder, shipment
from zoo.training.recipes import CPU
from zoo.training.run import TrainingRun
from zoo.training.shipment import Shipment, write_prompts
from zoo.training.stages import Stages


def test_prompt_files_are_written_with_their_pictures(tmp_path: Path) -> None:
    many = random_dataset(120)
    write_prompts(many, tmp_path)
    first = prompts.read_list("unseen_pairs", tmp_path)[0]
    index = next(
        i for i, r in enumerate(many.rows) if (r.code, r.style) == (first.code, first.style)
    )
    assert (evaluate.read_real("unseen_pairs", tmp_path)[0].numpy() == many.images[index]).all()


class Ready(Shipment):
    """Stages that end at once, so that only the writing is tried."""

    def _train(self) -> dict[str, object]:
        if self.stages.run.device.type == "meta":
            raise KeyboardInterrupt
        return {"bridge/s-s": BridgeModule(4, 4), "decoder/tiny": autoencoder.new_tiny()}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_parts_are_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(shipment, "write_prompts", lambda dataset: None)
    run = TrainingRun(CPU, tmp_path / "run", torch.device(device))
    run.dataset = random_dataset(2)
    stages = Stages.of(run)
    stages.text.tokenizer = parts.load_tokenizer()
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "old").write_text("part")
    if device == "meta":
        with pytest.raises(KeyboardInterrupt):
            Ready(stages, folder).write()
        assert [p.name for p in folder.iterdir()] == ["old"]
    else:
        Ready(stages, folder).write()
        assert not (folder / "old").exists()
        assert parts.load_bridge("s", "s", folder).into.in_features == 4
        parts.load_decoder("tiny", folder)
