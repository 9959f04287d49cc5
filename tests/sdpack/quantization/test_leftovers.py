from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node
from sdpack.quantization.layers import layers
from sdpack.quantization.leftovers import Unquantized, leftovers, listed_words
from sdpack.quantization.uses import SMALLEST_WEIGHT
from sdpack.rewrite.onnx_file import read

FLOAT = TensorProto.FLOAT
SQUARE = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def test_a_transposed_constant_of_a_branch_is_named(tmp_path: Path) -> None:
    """Values of branches may have no shapes."""
    constant = node("Constant", [], ["k"], value=numpy_helper.from_array(SQUARE))
    body = [
        constant,
        node("Transpose", ["k"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["p"]),
    ]
    branch = helper.make_graph(body, "b", [], [helper.make_tensor_value_info("p", FLOAT, None)])
    graph = helper.make_graph(
        [node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        "test",
        [
            helper.make_tensor_value_info("x", FLOAT, ["N", 64]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 64])],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    model = read(path)
    assert [weight.why for weight in leftovers(model, layers(model))] == ["in the body of If"] * 2


def test_weights_of_no_layer_come_largest_first_with_what_uses_them(tmp_path: Path) -> None:
    weights = {
        "layer": SQUARE,
        "added": np.ones((64, 64), np.float32),
        "shift": np.ones(SMALLEST_WEIGHT // 64 * 64, np.float32).reshape(-1, 64),
        "small": np.ones(64, np.float32),
    }
    nodes = [
        node("MatMul", ["x", "layer"], ["a"]),
        node("MatMul", ["added", "a"], ["b"]),
        node("Add", ["b", "small"], ["c"]),
        node("Concat", ["c", "shift"], ["y"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, [64, 64])],
        [helper.make_tensor_value_info("y", FLOAT, ["M", 64])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    model = read(path)
    assert leftovers(model, layers(model)) == [
        Unquantized("added", 64 * 64, "used by MatMul"),
        Unquantized("shift", SMALLEST_WEIGHT, "used by Concat"),
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, ""),
        (2, "left: w0 (not used), w1 (not used)"),
        (5, "left: w0 (not used), w1 (not used), w2 (not used) and 2 more"),
    ],
)
def test_three_are_named_and_the_rest_counted(count: int, words: str) -> None:
    weights = [Unquantized(f"w{n}", 4096, "not used") for n in range(count)]
    assert listed_words("left: ", weights) == words
