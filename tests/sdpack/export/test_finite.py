from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sdpack.errors import ExportError, SourceError
from sdpack.export.bridge import BridgeModule, load_bridge, save_bridge
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.graph import Shape, export

ZOO = Path(__file__).parents[3] / "zoo" / "parts"
NAN, INF = float("nan"), float("inf")


def broken(source: Path, target: Path, changes: Mapping[str, list[float]]) -> Path:
    """A copy of a checkpoint, the first numbers of some tensors replaced."""
    shutil.copytree(source, target)
    (path,) = target.glob("*.safetensors")
    tensors = load_file(path)
    for name, values in changes.items():
        tensors[name].view(-1)[: len(values)] = torch.tensor(values, dtype=tensors[name].dtype)
    save_file(tensors, path, metadata={"format": "pt"})
    return target


def test_a_broken_tensor_of_a_checkpoint_is_named_with_what_it_holds(tmp_path: Path) -> None:
    name = "decoder.layers.0.weight"
    source = ZOO / "decoder" / "tiny"
    folder = broken(source, tmp_path / "part", {name: [NAN, NAN, INF]})
    size = load_file(source / "diffusion_pytorch_model.safetensors")[name].numel()
    words = f"part: the tensor {name} holds 2 NaN and 1 infinite number of {size:,};"
    with pytest.raises(SourceError) as caught:
        Checkpoint(folder).load()
    assert words in str(caught.value)


def test_the_encoder_of_an_autoencoder_is_not_needed(tmp_path: Path) -> None:
    folder = broken(ZOO / "decoder" / "kl", tmp_path / "part", {"encoder.conv_in.weight": [NAN]})
    Checkpoint(folder).load()


def test_a_broken_text_encoder_says_how_many_tensors_are_broken(tmp_path: Path) -> None:
    source = ZOO / "text_encoder" / "s"
    names = [n for n in load_file(source / "model.safetensors") if n.endswith(".weight")][:3]
    folder = broken(source, tmp_path / "part", {name: [NAN] for name in names})
    with pytest.raises(SourceError, match=r"and 2 more tensors hold some"):
        Checkpoint(folder).load()


def test_a_broken_bridge_is_named(tmp_path: Path) -> None:
    save_bridge(BridgeModule(8, 16), tmp_path / "whole")
    folder = broken(tmp_path / "whole", tmp_path / "part", {"mix.bias": [NAN]})
    with pytest.raises(SourceError, match=r"the tensor mix\.bias holds 1 NaN of 16"):
        load_bridge(folder)


class Logarithm:
    """A part whose module gives NaN for what is below zero."""

    outputs = ("y",)
    dynamic: Mapping[str, Mapping[int, str]] = {}
    checked_at = (Shape(1, 4, 4),)

    @property
    def module(self) -> torch.nn.Module:
        class Log(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.log()

        return Log()

    def inputs(self, shape: Shape) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([1.0, -1.0, 2.0])}


def test_an_export_whose_module_gives_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="PyTorch gives an output with 1 NaN of 3"):
        export(Logarithm(), tmp_path)
