"""Weights behind a Cast, Transpose or Identity are layers, and compute what they computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines.onnxruntime import load
from sdpack.quantization.folding import stored_bytes
from sdpack.quantization.layers import layers
from sdpack.quantization.rounded_weights import rounder
from sdpack.quantization.schemes import ABILITIES, parse_scheme
from sdpack.quantization.uses import LayerKind
from sdpack.quantization.variant import LayerQuantization, make_variant
from sdpack.rewrite.onnx_file import read, write

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)
node = helper.make_node
UPRIGHT = RNG.standard_normal((64, 48)).astype(np.float32)  # (inputs, outputs), as MatMul has it
SQUARE = RNG.standard_normal((64, 64)).astype(np.float32)
KERNEL = RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)
HALF = UPRIGHT.astype(np.float16)
DOUBLE = UPRIGHT.astype(np.float64)
Sizes = Mapping[str, list[int | str]]
Case = tuple[list[onnx.NodeProto], Sizes, Mapping[str, np.ndarray]]
ROWS: Sizes = {"x": ["N", 64]}
PICTURE: Sizes = {"x": ["N", 16, 8, 8]}

# By name: nodes, inputs, weights, and how many layers and nodes that move weights are left.
FOLDED: dict[str, Case] = {
    "cast from fp16": (
        [node("Cast", ["w"], ["v"], to=FLOAT), node("MatMul", ["x", "v"], ["y"])],
        ROWS,
        {"w": HALF},
    ),
    "cast from double": (
        [node("Cast", ["w"], ["v"], to=FLOAT), node("MatMul", ["x", "v"], ["y"])],
        ROWS,
        {"w": DOUBLE},
    ),
    "rounded to fp16 and back": (
        [
            node("Cast", ["w"], ["u"], to=TensorProto.FLOAT16),
            node("Cast", ["u"], ["v"], to=FLOAT),
            node("MatMul", ["x", "v"], ["y"]),
        ],
        ROWS,
        {"w": UPRIGHT},
    ),
    "transposed": (
        [node("Transpose", ["w"], ["v"], perm=[1, 0]), node("MatMul", ["x", "v"], ["y"])],
        ROWS,
        {"w": UPRIGHT.T.copy()},
    ),
    "transposed without perm, then cast, then passed on": (
        [
            node("Transpose", ["w"], ["t"]),
            node("Cast", ["t"], ["c"], to=FLOAT),
            node("Identity", ["c"], ["v"]),
            node("MatMul", ["x", "v"], ["y"]),
        ],
        ROWS,
        {"w": HALF.T.copy()},
    ),
    "transposed twice": (
        [
            node("Transpose", ["w"], ["t"]),
            node("Transpose", ["t"], ["v"]),
            node("MatMul", ["x", "v"], ["y"]),
        ],
        ROWS,
        {"w": UPRIGHT},
    ),
    "shared by MatMuls behind nodes of their own": (
        [
            node("Transpose", ["w"], ["v"]),
            node("Transpose", ["w"], ["v2"]),
            node("MatMul", ["x", "v"], ["a"]),
            node("MatMul", ["x", "v2"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ],
        ROWS,
        {"w": UPRIGHT.T.copy()},
    ),
    "shared by MatMuls, one directly": (
        [
            node("Identity", ["w"], ["v"]),
            node("MatMul", ["x", "v"], ["a"]),
            node("MatMul", ["a", "w"], ["y"]),
        ],
        ROWS,
        {"w": SQUARE},
    ),
    "shared by a MatMul behind a Transpose and a Gemm that transposes": (
        [
            node("Transpose", ["w"], ["v"]),
            node("Gemm", ["x", "w"], ["a"], transB=1),
            node("MatMul", ["x", "v"], ["b"]),
            node("Add", ["a", "b"], ["y"]),
        ],
        ROWS,
        {"w": UPRIGHT.T.copy()},
    ),
    "Gemm behind a Transpose": (
        [node("Transpose", ["w"], ["v"]), node("Gemm", ["x", "v"], ["y"], transB=1)],
        ROWS,
        {"w": UPRIGHT},
    ),
    "convolution": (
        [node("Cast", ["w"], ["v"], to=FLOAT), node("Conv", ["x", "v"], ["y"], pads=[1] * 4)],
        PICTURE,
        {"w": KERNEL.astype(np.float16)},
    ),
    "convolution whose kernel is stored last axis first": (
        [
            node("Transpose", ["w"], ["v"], perm=[3, 2, 0, 1]),
            node("Conv", ["x", "v"], ["y"], pads=[1] * 4),
        ],
        PICTURE,
        {"w": KERNEL.transpose(2, 3, 1, 0).copy()},
    ),
    "table": (
        [
            node("Cast", ["w"], ["v"], to=FLOAT),
            node("ReduceSum", ["x"], ["s"], keepdims=0),
            node("Cast", ["s"], ["i"], to=TensorProto.INT64),
            node("Sub", ["i", "i"], ["zero"]),
            node("Gather", ["v", "zero"], ["y"]),
        ],
        ROWS,
        {"w": HALF},
    ),
}
APART: dict[str, Case] = {
    "a table that is also a matrix": (
        [
            node("Transpose", ["w"], ["v"]),
            node("MatMul", ["x", "v"], ["a"]),
            node("ArgMax", ["a"], ["i"], axis=1, keepdims=0),
            node("Gather", ["w", "i"], ["y"]),
        ],
        ROWS,
        {"w": UPRIGHT.T.copy()},
    ),
    "a weight and its transpose": (
        [
            node("Transpose", ["w"], ["v"]),
            node("MatMul", ["x", "w"], ["a"]),
            node("MatMul", ["a", "v"], ["y"]),
        ],
        ROWS,
        {"w": UPRIGHT},
    ),
    "a weight whose shape is asked for": (
        [
            node("Cast", ["w"], ["v"], to=FLOAT),
            node("MatMul", ["x", "v"], ["a"]),
            node("Shape", ["w"], ["s"]),
            node("ReduceSum", ["s"], ["n"], keepdims=0),
            node("Cast", ["n"], ["f"], to=FLOAT),
            node("Add", ["a", "f"], ["y"]),
        ],
        ROWS,
        {"w": HALF},
    ),
}


def written(name: str, folder: Path) -> Path:
    nodes, inputs, weights = {**FOLDED, **APART}[name]
    rank = 4 if inputs is PICTURE else 1 if name == "table" else 2
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info("y", FLOAT, [None] * rank)],
        [numpy_helper.from_array(values, n) for n, values in weights.items()],
    )
    path = folder / "model.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def ran(path: Path) -> np.ndarray:
    shape = (2, 16, 8, 8) if b"Conv" in path.read_bytes() else (8, 64)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    with load(path, threads=1, emulate=True) as session:
        return session.run({"x": x})["y"]


def made(path: Path, words: str | None, arithmetic: str = "fp32") -> Path:
    found = layers(read(path))
    schemes = {layer.name: parse_scheme(words) for layer in found} if words else {}
    runtime = Runtime.ONNXRUNTIME_CPU if arithmetic == "fp32" else Runtime.TENSORRT_RTX
    rounded = rounder(None, np.dtype(np.float32 if arithmetic == "fp32" else np.float16))
    quantization = LayerQuantization(schemes, rounded)
    model = make_variant(path, quantization, Precision(arithmetic), ABILITIES[runtime])
    target = path.with_name("made.onnx")
    write(model, target)
    return target


def off(path: Path, target: Path) -> float:
    """The error's energy as a share of the output's."""
    wanted = ran(path)
    return float(((ran(target) - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("name", FOLDED)
def test_a_moved_weight_is_one_layer_and_computes_the_same(tmp_path: Path, name: str) -> None:
    path = written(name, tmp_path)
    model = read(path)
    (layer,) = layers(model)
    assert layer.matrix().size == layer.size
    assert not {n.op_type for n in model.graph} & {"Identity", "Transpose"}
    target = tmp_path / "folded.onnx"
    write(model, target)
    assert np.allclose(ran(target), ran(path), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("words", ["w8", "w4"])
@pytest.mark.parametrize("name", FOLDED)
def test_a_moved_weight_is_quantized(tmp_path: Path, name: str, words: str) -> None:
    path = written(name, tmp_path)
    target = made(path, words)
    ops = [n.op_type for n in read(target).graph]
    assert ops.count("DequantizeLinear") + ops.count("Gather") // 2 == 1
    # Numbers of a normal distribution: w8 by channel leaves about 1e-4 of the energy at most, w4 by
    # block about 1e-2, twice that behind two layers; a table has eight bits on a CPU.
    assert 0 < off(path, target) < (2e-4 if words == "w8" else 0.04)
    tensors = [value.const_value for value in read(target).graph.initializers.values()]
    stored = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    numbers = sum(w.size for w in FOLDED[name][2].values())
    assert stored < numbers * (1.3 if words == "w8" or name == "table" else 0.8)


@pytest.mark.parametrize("name", FOLDED)
def test_a_moved_weight_is_narrowed(tmp_path: Path, name: str) -> None:
    path = written(name, tmp_path)
    for words in (None, "w8"):
        assert off(path, made(path, words, "fp16")) < 2e-4
    types = {v.dtype for v in read(made(path, None, "fp16")).graph.initializers.values()}
    assert types == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("name", APART)
def test_a_weight_used_in_two_ways_stays_where_it_is(tmp_path: Path, name: str) -> None:
    path = written(name, tmp_path)
    model = read(path)
    before = [n.op_type for n in model.graph]
    assert layers(model) == []
    assert [n.op_type for n in model.graph] == before
    assert off(path, made(path, None)) == 0


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_what_is_not_quantized_keeps_its_16_bits(tmp_path: Path, dtype: type) -> None:
    nodes, inputs, _ = FOLDED["transposed without perm, then cast, then passed on"]
    path = tmp_path / "model.onnx"
    weight: np.ndarray = UPRIGHT.T.astype(dtype)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, FLOAT, shape) for n, shape in inputs.items()],
        [helper.make_tensor_value_info("y", FLOAT, [None, None])],
        [ir.to_proto(ir.tensor(weight, name="w"))],
    )
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    (layer,) = layers(read(path))
    assert stored_bytes(layer.weight) == 2
    target = made(path, None)
    (stored,) = read(target).graph.initializers.values()
    assert stored.dtype is not None
    assert stored.dtype.itemsize == 2
    assert off(path, target) < 1e-12


def test_kinds_are_those_of_the_node_that_multiplies(tmp_path: Path) -> None:
    for name, kind in (("convolution", LayerKind.CONVOLUTION), ("table", LayerKind.TABLE)):
        (layer,) = layers(read(written(name, tmp_path)))
        assert layer.kind is kind


def test_a_cast_that_is_put_back_gets_a_name_of_its_own(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["w"], ["v"], to=FLOAT, name="w_cast_1"),
        node("MatMul", ["x", "v"], ["w_cast_0"]),
        node("Relu", ["w_cast_0"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", FLOAT, [None, None])],
        [numpy_helper.from_array(HALF, "w")],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    target = made(path, None)
    onnx.checker.check_model(target)
    assert off(path, target) < 1e-12
