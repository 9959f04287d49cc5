from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from sdpack.errors import GraphError
from sdpack.quantization.finite import check_weights
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import chain, linear

PATH = Path("unet.onnx")
RNG = np.random.default_rng(0)


def weight(*broken: float) -> np.ndarray:
    values = RNG.standard_normal((64, 32)).astype(np.float32)
    values.flat[: len(broken)] = broken
    return values


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([np.nan], "1 NaN of 2,048"),
        ([np.nan, np.inf, -np.inf], "1 NaN and 2 infinite numbers of 2,048"),
        ([np.inf], "1 infinite number of 2,048"),
        ([-np.inf] * 2048, "2,048 infinite numbers of 2,048"),
    ],
)
def test_a_broken_weight_is_named_with_what_it_holds(broken: list[float], words: str) -> None:
    with pytest.raises(GraphError, match=rf"unet\.onnx: the weight w1 holds {words};"):
        check_weights(PATH, chain([weight()[:32].copy(), weight(*broken).T.copy()]))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_weights_of_every_float_type_are_looked_at(dtype: type) -> None:
    model = linear(weight())
    extra = ir.Value(name="extra", const_value=ir.tensor(weight(np.nan).astype(dtype)))
    model.graph.register_initializer(extra)
    with pytest.raises(GraphError, match="the weight extra holds 1 NaN"):
        check_weights(PATH, model)


@pytest.mark.parametrize(
    "values",
    [
        np.triu(np.full((77, 77), -np.inf, np.float32), 1),
        np.where(np.tri(64, dtype=bool), np.arange(64), -np.inf).astype(np.float32),
        np.array(-np.inf, np.float32),
        np.array(np.inf, np.float32),
    ],
    ids=["mask", "slopes of ALiBi under a mask", "lower bound", "upper bound"],
)
def test_masks_and_bounds_may_be_infinite(values: np.ndarray) -> None:
    model = linear(weight())
    model.graph.register_initializer(ir.Value(name="mask", const_value=ir.tensor(values)))
    check_weights(PATH, model)


def test_a_weight_in_a_branch_is_looked_at(tmp_path: Path) -> None:
    def branch(name: str, values: np.ndarray) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", name], [f"{name} product"])
        out = helper.make_tensor_value_info(f"{name} product", TensorProto.FLOAT, ["N", 32])
        return helper.make_graph([node], name, [], [out], [numpy_helper.from_array(values, name)])

    node = helper.make_node(
        "If",
        ["c"],
        ["y"],
        then_branch=branch("a", weight()),
        else_branch=branch("b", weight(np.nan)),
    )
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])]
    graph = helper.make_graph([node], "test", inputs, outputs)
    path = tmp_path / "branch.onnx"
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    with pytest.raises(GraphError, match="the weight b holds 1 NaN of 2,048"):
        check_weights(path, read(path))
