"""Root mean square normalization is written so that ONNX Runtime fuses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sdpack.rewrite.onnx_file import read, write
from sdpack.rewrite.roots import divide_by_roots
from torch import Tensor, nn

WIDTH = 16


class Normalized(nn.Module):
    """As language models are written, with the factor on either side."""

    def __init__(self, factor_first: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.factor_first = factor_first

    def forward(self, states: Tensor) -> Tensor:
        factor = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
        product = factor * states if self.factor_first else states * factor
        return self.weight * product


def exported(module: nn.Module, path: Path) -> Tensor:
    states = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(module, (states,), dynamo=True, input_names=["states"])
    assert program is not None
    write(program.model, path)
    return states


def operators(path: Path) -> list[str]:
    """The operators of a graph as ONNX Runtime runs it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    made = onnx.load(options.optimized_model_filepath)
    return [node.op_type for node in made.graph.node]


@pytest.mark.parametrize("factor_first", [False, True])
def test_onnx_runtime_fuses_the_normalization(factor_first: bool, tmp_path: Path) -> None:
    module = Normalized(factor_first)
    path = tmp_path / "model.onnx"
    states = exported(module, path)
    assert "SimplifiedLayerNormalization" not in operators(path)
    model = read(path)
    assert divide_by_roots(model) == 1
    write(model, tmp_path / "divided.onnx")
    assert operators(tmp_path / "divided.onnx") == ["SimplifiedLayerNormalization"]
    session = onnxruntime.InferenceSession(
        tmp_path / "divided.onnx", providers=["CPUExecutionProvider"]
    )
    (made,) = session.run(None, {"states": states.numpy()})
    wanted = module(states).detach().numpy()
    assert np.allclose(made, wanted, rtol=1e-5, atol=1e-6)


class Twice(nn.Module):
    """The factor is used by two products, and is an output as well."""

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        factor = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
        return states * factor, factor


def test_a_factor_that_is_used_elsewhere_stays(tmp_path: Path) -> None:
    exported(Twice(), tmp_path / "model.onnx")
    assert divide_by_roots(read(tmp_path / "model.onnx")) == 0
