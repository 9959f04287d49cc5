from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.engines.onnxruntime import load
from sdpack.rewrite.writer import (
    Sizes,
    Writer,
    agree,
    describe,
    elements,
    hand_over,
    input_of,
    lowest_of,
    permutation,
    prune,
    scalar,
    shape_of,
    sizes_of,
    used_once,
)

from tests.sdpack.graphs import chain, linear, saved

WEIGHT = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
FLOAT = ir.DataType.FLOAT


def value(sizes: Sizes, name: str = "v") -> ir.Value:
    found = ir.Value(name=name)
    describe(found, sizes, FLOAT)
    return found


def constant(values: np.ndarray) -> ir.Value:
    return ir.Value(name="c", const_value=ir.tensor(values), shape=ir.Shape(values.shape))


def test_added_nodes_run_before_the_node_they_feed(tmp_path: Path) -> None:
    """Halves of the input, exchanged before the product."""
    model = linear(WEIGHT)
    product = model.graph.node(0)
    writer = Writer(product.outputs[0])
    half = (("N", 4), FLOAT)
    one, other = writer.split("halves", input_of(product, 0), 1, [half, half])
    swapped = writer.add("swapped", "Concat", [other, one], (("N", 8), FLOAT), {"axis": 1})
    product.replace_input_with(0, swapped)
    assert [node.name for node in model.graph] == ["y_halves", "y_swapped", "linear"]
    x = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    with load(saved(model, tmp_path), threads=1) as session:
        seen = session.run({"x": x})["y"]
    assert np.allclose(seen, np.roll(x, 4, axis=1) @ WEIGHT, atol=1e-5)


def test_a_cast_is_added_only_where_the_type_differs() -> None:
    model = linear(WEIGHT)
    x = model.graph.inputs[0]
    writer = Writer(model.graph.node(0).outputs[0])
    assert writer.cast("x", x, FLOAT) is x
    assert writer.cast("x", x, None) is x
    half = writer.cast("x", x, ir.DataType.FLOAT16)
    assert (half.dtype, sizes_of(half)) == (ir.DataType.FLOAT16, ("N", 8))


def test_an_axis_without_a_name_gets_one_of_our_own() -> None:
    open_axis = ir.Value(name="v", shape=ir.Shape([2, "N", None]))
    assert sizes_of(open_axis) == (2, "N", "?v[2]")
    assert sizes_of(ir.Value(name="v")) == ()


@given(st.lists(st.integers(1, 9) | st.sampled_from(["N", "T"]), min_size=1, max_size=4))
def test_sizes_that_are_known_survive_a_shape(sizes: list[int | str]) -> None:
    assert sizes_of(value(tuple(sizes))) == tuple(sizes)
    assert list(shape_of(tuple(sizes))) == list(ir.Shape(sizes))


def test_a_tensor_of_sizes_is_followed_to_where_they_come_from() -> None:
    model = linear(WEIGHT)
    writer = Writer(model.graph.node(0).outputs[0])
    shape = value((2, "N", 8))
    rows = writer.size("rows", shape, 1)
    four = writer.integers("four", 4)
    whole = writer.add("whole", "Concat", [rows, four], ((2,), ir.DataType.INT64), {"axis": 0})
    assert elements(four) == (4,)
    assert elements(rows) == ("N",)
    assert elements(whole) == ("N", 4)
    assert elements(value((1,), "unknown")) == ("?unknown",)
    assert elements(value((3,), "unknown")) == ()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("N", "T", 8), ("N", "S", 8), True),
        (("N", "T", 8), ("M", "T", 8), True),
        (("N", "T", 8), ("M", "S", 8), False),
        (("N", "T", 8), ("N", "T", 4), False),
        (("N", "T"), ("N", "T", 8), False),
    ],
)
def test_two_sizes_of_three_that_agree_settle_the_third(
    one: Sizes, other: Sizes, same: bool
) -> None:
    assert agree(value(one), other) == same


@pytest.mark.parametrize(
    ("values", "number"),
    [
        (np.float32(0.5), 0.5),
        (np.ones((1, 1, 1)), 1.0),
        (np.ones((1,) * 4), None),
        (np.ones(2), None),
    ],
)
def test_a_scalar_is_one_number_that_changes_no_shape(
    values: np.ndarray, number: float | None
) -> None:
    assert scalar(constant(np.asarray(values))) == number
    assert scalar(value((1,))) is None


def test_a_transpose_without_an_order_reverses_its_axes() -> None:
    given = value((2, 3, 4))
    assert permutation(ir.node("Transpose", [given])) == (2, 1, 0)
    assert permutation(ir.node("Transpose", [given], {"perm": [0, 2, 1]})) == (0, 2, 1)


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_the_lowest_number_is_the_type_s(dtype: ir.DataType) -> None:
    found = lowest_of(dtype)
    assert found == np.finfo(dtype.numpy()).min
    assert found.dtype == dtype.numpy()


def test_replacing_a_value_removes_the_nodes_and_weights_behind_it(tmp_path: Path) -> None:
    """The second product of two gets the first one's input; the first and its weight go."""
    model = chain([np.eye(8, dtype=np.float32), WEIGHT])
    first, relu, second = list(model.graph)
    hand_over(relu.outputs[0], model.graph.inputs[0])
    prune(relu)
    assert list(model.graph) == [second]
    assert list(model.graph.initializers) == ["w1"]
    assert used_once(model.graph.inputs[0])
    x = np.ones((1, 8), np.float32)
    with load(saved(model, tmp_path), threads=1) as session:
        assert np.allclose(session.run({"x": x})["y1"], x @ WEIGHT, atol=1e-5)
    assert first.graph is None


def test_an_output_of_the_graph_keeps_its_name() -> None:
    model = linear(WEIGHT)
    product = model.graph.node(0)
    other = Writer(product.outputs[0]).add(
        "other", "Relu", [model.graph.inputs[0]], (("N", 4), FLOAT)
    )
    hand_over(product.outputs[0], other)
    assert [output.name for output in model.graph.outputs] == ["y"]
    assert model.graph.outputs[0] is other
