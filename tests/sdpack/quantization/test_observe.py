from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from sdpack.errors import QuantizationError
from sdpack.quantization.clipping import best_threshold, histogram
from sdpack.quantization.layers import layers
from sdpack.quantization.observe import (
    observe,
    read_observed,
)
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import embedding, linear, saved, two_readers

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((64, 48)).astype(np.float32)


def batches(count: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.standard_normal((8, 64)).astype(np.float32)} for _ in range(count)]


def test_moments_and_ranges_are_by_layer_and_survive_the_disk(tmp_path: Path) -> None:
    seen = batches()
    found = observe(saved(linear(WEIGHT), tmp_path / "graph"), seen, tmp_path, threads=1)
    again = read_observed(tmp_path)
    whole = np.concatenate([batch["x"] for batch in seen])
    largest = np.abs(whole).max()
    assert 0.5 * largest < found.ranges["linear"] <= largest * 1.0001
    assert again.ranges == found.ranges
    assert again.peaks == found.peaks
    moments = again.moments("linear")
    assert moments is not None
    wanted = whole.T @ whole / len(whole)
    assert np.abs(moments[0].matrix - wanted).max() < 2e-3 * np.abs(wanted).max()
    assert again.moments("another") is None
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [
        "activations.json",
        "moments.json",
        "moments.npz",
    ]


def test_a_shared_weight_is_seen_with_all_its_inputs(tmp_path: Path) -> None:
    found = observe(saved(two_readers(WEIGHT), tmp_path / "graph"), batches(), tmp_path, threads=1)
    assert list(found.ranges) == ["linear"]


def test_layers_with_the_same_input_share_its_statistics(tmp_path: Path) -> None:
    weights = {name: RNG.standard_normal((64, 48)).astype(np.float32) for name in ("q", "k", "o")}
    nodes = [
        helper.make_node("MatMul", ["x", "q_w"], ["q_y"], name="q"),
        helper.make_node("MatMul", ["x", "k_w"], ["k_y"], name="k"),
        helper.make_node("Tanh", ["x"], ["inner"], name="tanh"),
        helper.make_node("MatMul", ["inner", "o_w"], ["o_y"], name="o"),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["batch", 48])
            for name in weights
        ],
        [numpy_helper.from_array(values, f"{name}_w") for name, values in weights.items()],
    )
    path = saved(ir.serde.deserialize_model(helper.make_model(graph)), tmp_path / "graph")
    seen = batches()
    found = observe(path, seen, tmp_path, threads=1)
    runs = json.loads((tmp_path / "moments.json").read_text())
    assert runs["q"] == runs["k"] != runs["o"]
    assert found.ranges["q"] == found.ranges["k"] != found.ranges["o"]
    assert found.noise["q"] != found.noise["k"]  # it depends on the weights
    for name, weight in weights.items():
        alone = observe(saved(_alone(name, weight), tmp_path / name), seen, tmp_path / name, 1)
        assert found.noise[name] == pytest.approx(alone.noise[name])
        ours, theirs = found.moments(name), alone.moments(name)
        assert ours is not None
        assert theirs is not None
        assert np.array_equal(ours[0].matrix, theirs[0].matrix)


def _alone(name: str, weight: np.ndarray) -> ir.Model:
    """A graph with one of these layers only; "o" multiplies the input's tanh."""
    given = "inner" if name == "o" else "x"
    nodes = [helper.make_node("Tanh", ["x"], ["inner"], name="tanh")] if name == "o" else []
    nodes.append(helper.make_node("MatMul", [given, "w"], ["y"], name=name))
    graph = helper.make_graph(
        nodes,
        "alone",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 48])],
        [numpy_helper.from_array(weight, "w")],
    )
    return ir.serde.deserialize_model(helper.make_model(graph))


def test_a_table_has_no_moments(tmp_path: Path) -> None:
    path = saved(embedding(WEIGHT), tmp_path / "graph")
    found = observe(path, [{"x": np.zeros((2, 3), np.int64)}], tmp_path, threads=1)
    assert found.moments("embedding") is None
    assert found.peaks == {"embedding": pytest.approx(np.abs(WEIGHT[0]).max())}


def test_inputs_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path / "graph")
    with pytest.raises(QuantizationError, match="not finite"):
        observe(path, [{"x": np.full((1, 64), np.nan, np.float32)}], tmp_path, threads=1)
    with pytest.raises(QuantizationError, match="no calibration inputs"):
        observe(path, [], tmp_path, threads=1)


def test_the_extent_is_that_of_values_between_nodes_too(tmp_path: Path) -> None:
    """Up by 300 twice and down again: nothing large goes in or comes out."""
    path = saved(wild([300.0, 300.0, 1 / 300, 1 / 300]), tmp_path / "wild")
    x = {"x": np.full((2, 4), -2.0, np.float32)}
    x["x"][0, 0] = np.finfo(np.float32).min  # as a mask has it
    found = observe(path, [x], tmp_path, threads=1)
    assert astuple(found.extent) == (pytest.approx(180_000.0), "mul 1")


def wild(factors: list[float]) -> ir.Model:
    """x (N, 4) times one factor after the other."""
    model = linear(np.eye(4, dtype=np.float32))
    value = model.graph.outputs[0]
    for number, factor in enumerate(factors):
        scalar = ir.Value(
            name=f"c{number}",
            type=ir.TensorType(ir.DataType.FLOAT),
            shape=ir.Shape([]),
            const_value=ir.tensor(np.float32(factor)),
        )
        model.graph.register_initializer(scalar)
        node = ir.node("Mul", [value, scalar], name=f"mul {number}")
        value, node.outputs[0].name = node.outputs[0], f"v{number}"
        value.dtype, value.shape = ir.DataType.FLOAT, model.graph.outputs[0].shape
        model.graph.append(node)
    model.graph.outputs[0] = value
    return model


@pytest.mark.parametrize("outlier", [1.0, 100.0])
def test_noise_is_what_int8_inputs_do_to_outputs(tmp_path: Path, outlier: float) -> None:
    weight, x = WEIGHT.copy(), RNG.standard_normal((4096, 64)).astype(np.float32)
    x[:, 0] *= outlier
    weight[0] /= outlier  # large, and of little use
    path = saved(linear(weight), tmp_path / "graph")
    found = observe(path, [{"x": x}], tmp_path, threads=1)
    step = found.ranges["linear"] / 127
    rounded = np.clip(np.rint(x / step), -127, 127) * step
    share = float((((rounded - x) @ weight) ** 2).sum() / ((x @ weight) ** 2).sum())
    assert found.noise["linear"] == pytest.approx(share, rel=0.3)


def test_a_tensor_of_zeros_has_a_harmless_range() -> None:
    assert best_threshold(histogram(np.zeros(3)), 0.0) == (1.0, 0.0)


def test_names_are_those_of_the_graph_that_was_read(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path / "graph")
    found = observe(path, batches(), tmp_path, threads=1)
    assert set(found.ranges) == {layer.name for layer in layers(read(path))}


def test_sequences_of_tensors_are_passed_over(tmp_path: Path) -> None:
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("SequenceEmpty", [], ["none"]),
        node("SequenceInsert", ["none", "x"], ["one"]),
        node("ConcatFromSequence", ["one"], ["rows"], axis=0),
        node("MatMul", ["rows", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [info("x", TensorProto.FLOAT, ["N", 64])],
        [info("y", TensorProto.FLOAT, [None, 48])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opsets = [helper.make_opsetid("", 21)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    found = observe(path, batches(), tmp_path, threads=1)
    assert list(found.ranges) == ["product"]
    assert found.peaks["product"] > 0
