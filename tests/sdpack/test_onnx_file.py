from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sdpack.errors import GraphError
from sdpack.onnx_file import files_of, read, write
from sdpack.quantize.layers import layers

WEIGHT = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
FLOAT = onnx.TensorProto.FLOAT


def saved(folder: Path, nodes: list[onnx.NodeProto], **more: object) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 48])],
        **more.pop("graph", {}),
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)
    path = folder / "other.onnx"
    onnx.save(model, path)
    return path


def test_weights_in_constants_are_layers_too(tmp_path: Path) -> None:
    value = numpy_helper.from_array(WEIGHT)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    (layer,) = layers(read(saved(tmp_path, nodes)))
    assert layer.name == "product"
    assert np.array_equal(layer.matrix(), WEIGHT.T)


def test_weights_that_are_also_inputs_are_layers_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    path = saved(tmp_path, nodes, graph={"initializer": [numpy_helper.from_array(WEIGHT, "w")]})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, WEIGHT.shape))
    onnx.save(model, path)
    assert [layer.name for layer in layers(read(path))] == ["product"]


def test_functions_are_written_out_and_values_have_types(tmp_path: Path) -> None:
    body = [
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
    ]
    function = helper.make_function(
        "mine", "Dense", ["a", "b"], ["d"], body, [helper.make_opsetid("", 21)]
    )
    nodes = [helper.make_node("Dense", ["x", "w"], ["y"], domain="mine")]
    weight = {"initializer": [numpy_helper.from_array(WEIGHT, "w")]}
    model = read(saved(tmp_path, nodes, graph=weight, functions=[function]))
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu"]
    assert all(value.dtype is not None for node in model.graph for value in node.outputs)
    assert len(layers(model)) == 1


def test_what_is_written_is_read_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = {"initializer": [numpy_helper.from_array(WEIGHT, "w")]}
    model = read(saved(tmp_path, nodes, graph=weight))
    one, other = tmp_path / "one.onnx", tmp_path / "other" / "one.onnx"
    other.parent.mkdir()
    for path in (one, other):
        write(model, path)
    assert [p.name for p in files_of(one)] == ["one.onnx", "one.onnx.data"]
    for a, b in zip(files_of(one), files_of(other), strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert np.array_equal(layers(read(one))[0].matrix(), WEIGHT.T)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a"])
def test_what_is_no_graph_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"broken\.onnx"):
        read(path)
    with pytest.raises(GraphError, match="there is no such file"):
        read(tmp_path / "absent.onnx")
