"""Models with all layers, with some, without weights, and with weights of another model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sdpack.errors import SourceError
from sdpack.export.checkpoint import Checkpoint

from tests.e2e import families
from tests.e2e.language_families import qwen


def test_a_model_with_fewer_layers_keeps_its_config(tmp_path: Path) -> None:
    qwen(4).save_pretrained(tmp_path)
    files = replace(Checkpoint(tmp_path)._model_files, layers=2)
    for model in (files.load(), files.empty()):
        config = model.config
        assert len(model.layers) == 2  # type: ignore[arg-type]
        assert config.num_hidden_layers == len(config.layer_types) == 4  # type: ignore[union-attr,arg-type]


def test_an_empty_model_ties_what_its_class_ties(tmp_path: Path) -> None:
    families.t5().save_pretrained(tmp_path)
    model = Checkpoint(tmp_path)._model_files.empty()
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert model.shared.weight is model.encoder.embed_tokens.weight  # type: ignore[union-attr]


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    families.kl().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.weight"] = torch.zeros(3, 4, 3, 3)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(SourceError, match=r"decoder\.conv_in\.weight of shape \(3, 4, 3, 3\)"):
        Checkpoint(tmp_path).load()
