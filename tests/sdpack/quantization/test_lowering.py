from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sdpack.domain.precision import Runtime
from sdpack.engines.onnxruntime import load
from sdpack.errors import QuantizationError
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.lowering import round_inputs, store
from sdpack.quantization.rounding import Rounded
from sdpack.quantization.schemes import ABILITIES, parse_scheme

from tests.sdpack.graphs import convolution, embedding, gemm, linear, saved, two_readers

RNG = np.random.default_rng(0)
CPU = ABILITIES[Runtime.ONNXRUNTIME_CPU]
GRAPHS = {
    "matrix": linear(RNG.standard_normal((64, 48)).astype(np.float32)),
    "matrix by rows": gemm(RNG.standard_normal((48, 64)).astype(np.float32), np.zeros(48, "f4")),
    "convolution": convolution(RNG.standard_normal((24, 32, 3, 3)).astype(np.float32)),
    "table": embedding(RNG.standard_normal((200, 64)).astype(np.float32)),
}
INPUTS: dict[str, np.ndarray] = {
    "matrix": RNG.standard_normal((4, 64)).astype(np.float32),
    "matrix by rows": RNG.standard_normal((4, 64)).astype(np.float32),
    "convolution": RNG.standard_normal((1, 32, 8, 8)).astype(np.float32),
    "table": RNG.integers(0, 200, (2, 5)),
}


def some_rounded(layer: Layer, block: int) -> Rounded:
    """Random numbers of four bits, and scales that fp16 holds."""
    blocks = layer.summed // block if block else 1
    numbers = RNG.integers(-7, 8, (layer.outputs, layer.summed)).astype(np.float32)
    scales = (RNG.integers(1, 9, (layer.outputs, blocks)) / 64).astype(np.float32)
    return Rounded(numbers, scales, block)


def unpacked(rounded: Rounded) -> np.ndarray:
    """Each number times its scale, (outputs, summed)."""
    return rounded.numbers * np.repeat(
        rounded.scales, rounded.numbers.shape[1] // rounded.scales.shape[1], 1
    )


def run(model: ir.Model, folder: Path, x: np.ndarray) -> np.ndarray:
    with load(saved(model, folder), threads=1) as session:
        return session.run({"x": x})["y"]


@pytest.mark.parametrize("words", ["w8", "w4", "w4:16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_stored_weight_computes_what_its_numbers_times_scales_do(
    name: str, words: str, tmp_path: Path
) -> None:
    scheme = parse_scheme("w8" if name == "table" else words)
    stored, plain = GRAPHS[name].clone(), GRAPHS[name].clone()
    (layer,) = layers(stored)
    rounded = some_rounded(layer, scheme.block)
    store(stored, layer, scheme, lambda: rounded, CPU)
    (same,) = layers(plain)
    assert same.weight.const_value is not None
    same.weight.const_value = ir.tensor(same.folded(unpacked(rounded)))
    x = INPUTS[name]
    assert np.allclose(run(stored, tmp_path / "a", x), run(plain, tmp_path / "b", x), atol=1e-4)


def test_a_weight_is_rounded_once_when_the_graph_is_written(tmp_path: Path) -> None:
    model = GRAPHS["matrix"].clone()
    (layer,) = layers(model)
    made: list[str] = []

    def make() -> Rounded:
        made.append(layer.name)
        return some_rounded(layer, 32)

    store(model, layer, parse_scheme("w4"), make, CPU)
    assert made == []
    saved(model, tmp_path)
    assert made == ["linear"]


def test_layers_of_one_input_share_its_rounding_by_the_widest_range() -> None:
    model = two_readers(RNG.standard_normal((64, 48)).astype(np.float32))
    (layer,) = layers(model)
    round_inputs(model, {layer.name: (layer, parse_scheme("int8"))}, {layer.name: 254.0})
    ops = [node.op_type for node in model.graph]
    assert ops == ["QuantizeLinear", "DequantizeLinear", "MatMul", "MatMul"]
    scale = model.graph.node(0).inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    assert scale.const_value.numpy() == 254 / 127


def test_a_layer_without_an_input_range_is_refused_by_name() -> None:
    model = GRAPHS["matrix"].clone()
    (layer,) = layers(model)
    with pytest.raises(QuantizationError, match="the input range of linear was not measured"):
        round_inputs(model, {layer.name: (layer, parse_scheme("int8"))}, {})
