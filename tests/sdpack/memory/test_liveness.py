from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.errors import ExportError
from sdpack.memory.liveness import evaluate, liveness

from tests.sdpack.graphs import linear


def value(name: str, shape: list[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def chain(*steps: tuple[str, str, list[str], list[int | str]]) -> ir.Model:
    """A graph from (operator, output, inputs, output shape), over the input x of (N, 4)."""
    values = {"x": value("x", ["N", 4])}
    nodes = []
    for op, output, inputs, shape in steps:
        values[output] = value(output, shape)
        given_inputs = [values[name] for name in inputs]
        nodes.append(ir.node(op, given_inputs, outputs=[values[output]], name=output))
    graph = ir.Graph(
        [values["x"]], [values[steps[-1][1]]], nodes=nodes, opset_imports={"": 21}, name="t"
    )
    return ir.Model(graph, ir_version=10)


def test_a_chain_holds_two_neighbours() -> None:
    model = chain(
        ("Relu", "a", ["x"], ["N", 4]),
        ("Relu", "b", ["a"], ["N", 100]),
        ("Relu", "c", ["b"], ["N", 50]),
    )
    seen = liveness(model, {"N": 2})
    assert seen.peak_bytes == 4 * 2 * (100 + 50)
    assert seen.node == "c"


def test_a_skip_connection_stays_alive() -> None:
    model = chain(
        ("Relu", "skip", ["x"], ["N", 30]),
        ("Relu", "b", ["skip"], ["N", 100]),
        ("Relu", "c", ["b"], ["N", 80]),
        ("Add", "d", ["c", "skip"], ["N", 30]),
    )
    assert liveness(model, {"N": 1}).peak_bytes == 4 * (30 + 100 + 80)


def test_a_view_costs_nothing_and_keeps_its_source() -> None:
    model = chain(
        ("Relu", "a", ["x"], ["N", 100]),
        ("Reshape", "v", ["a"], ["N", 10, 10]),
        ("Relu", "b", ["v"], ["N", 60]),
    )
    assert liveness(model, {"N": 1}).peak_bytes == 4 * (100 + 60)


def test_weights_are_not_counted() -> None:
    model = linear(np.ones((4, 1000), np.float32))
    assert liveness(model, {"N": 3}).peak_bytes == 4 * 3 * (4 + 1000)


def test_sizes_that_are_not_told_are_named() -> None:
    model = chain(("NonZero", "a", ["x"], [2, "found"]), ("Relu", "b", ["a"], [2, "found"]))
    assert liveness(model, {"N": 1}).unknown == ("a", "b")


def test_what_the_exporter_left_out_is_inferred() -> None:
    model = chain(("Relu", "a", ["x"], ["N", 4]), ("MatMul", "b", ["x", "a"], [4, 4]))
    model.graph[0].outputs[0].shape = None
    assert liveness(model, {"N": 4}).peak_bytes == 4 * 3 * 16


@given(st.integers(1, 64), st.integers(1, 64))
def test_the_exporter_s_expressions(height: int, width: int) -> None:
    bindings = {"height": height, "width": width}
    assert evaluate("2*(((height - 1)//2)) + 2", bindings) == 2 * ((height - 1) // 2) + 2
    assert evaluate("8*height*width", bindings) == 8 * height * width
    assert evaluate("Max(1, -height + width)", bindings) == max(1, width - height)
    assert evaluate("floor(height/2)", bindings) == height // 2


@pytest.mark.parametrize(
    "expression",
    [
        "depth",
        "__import__('os')",
        "height.real",
        "height +",
        "[height]",
        "print(1)",
        "1 // 0",
        "a'",
    ],
)
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(ExportError, match="cannot be evaluated"):
        evaluate(expression, {"height": 1})
