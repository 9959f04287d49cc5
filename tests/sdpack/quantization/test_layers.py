from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from sdpack.errors import QuantizationError
from sdpack.quantization.layers import layers
from sdpack.quantization.uses import LayerKind

from tests.sdpack.graphs import convolution, embedding, gemm, linear, two_readers

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_every_kind_is_a_matrix_of_outputs_by_what_is_summed() -> None:
    weight, kernel = floats(64, 48), floats(24, 16, 3, 3)
    for model, kind, wanted in (
        (linear(weight), LayerKind.MATRIX, weight.T),
        (gemm(weight, floats(64)), LayerKind.MATRIX, weight),
        (convolution(kernel), LayerKind.CONVOLUTION, kernel.reshape(24, -1)),
        (embedding(weight), LayerKind.TABLE, weight),
    ):
        (layer,) = layers(model)
        assert layer.kind is kind
        assert (layer.outputs, layer.summed) == wanted.shape
        assert np.array_equal(layer.matrix(), wanted)
        assert layer.weight.const_value is not None
        assert np.array_equal(layer.folded(layer.matrix()), layer.weight.const_value.numpy())


def test_nodes_that_share_a_weight_are_one_layer() -> None:
    (layer,) = layers(two_readers(floats(64, 48)))
    assert [node.name for node in layer.nodes] == ["linear", "second"]


def test_a_weight_used_in_two_ways_is_left_alone() -> None:
    """As a table and its transpose: an embedding tied to the output."""
    model = linear(floats(48, 48))
    (node,) = model.graph
    other = ir.node("Gather", [node.inputs[1], node.inputs[0]], name="rows")
    model.graph.append(other)
    assert layers(model) == []


def test_small_weights_are_left_alone() -> None:
    assert layers(linear(floats(8, 8))) == []


def test_nodes_without_a_name_of_their_own_get_one() -> None:
    model = two_readers(floats(64, 48))
    for node in model.graph:
        node.name = "same"
    (layer,) = layers(model)
    assert len({node.name for node in layer.nodes}) == 2


def test_a_quantized_graph_is_refused() -> None:
    model = linear(floats(64, 48))
    model.graph.append(ir.node("DynamicQuantizeLinear", [model.graph.inputs[0]], name="down"))
    with pytest.raises(QuantizationError, match="down is a DynamicQuantizeLinear"):
        layers(model)


def test_queries_and_keys_feed_an_attention_and_its_output_does_not() -> None:
    """x @ q times the transpose of x @ k, scaled, then @ o."""
    model = linear(floats(64, 64))
    (query,) = model.graph
    x = model.graph.inputs[0]

    def weight(name: str) -> ir.Value:
        tensor = ir.tensor(floats(64, 64), name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), const_value=tensor)
        model.graph.register_initializer(value)
        return value

    key = ir.node("MatMul", [x, weight("k")], name="key")
    scaled = ir.node("Mul", [query.outputs[0], ir.Value(name="scale")], name="scaled")
    turned = ir.node("Transpose", key.outputs, name="turned")
    scores = ir.node("MatMul", [scaled.outputs[0], turned.outputs[0]], name="scores")
    out = ir.node("MatMul", [scores.outputs[0], weight("o")], name="out")
    model.graph.extend([key, scaled, turned, scores, out])
    assert {layer.name: layer.feeds_attention for layer in layers(model)} == {
        "linear": True,
        "key": True,
        "out": False,
    }


def test_what_only_moves_a_product_is_no_attention() -> None:
    """An Einsum of one input, as transformers put the patches of a picture together."""
    model = linear(floats(64, 64))
    (last,) = model.graph
    moved = ir.node("Einsum", last.outputs, name="moved")
    model.graph.append(moved)
    (layer,) = layers(model)
    assert not layer.feeds_attention
    other = ir.node("Einsum", [moved.outputs[0], model.graph.inputs[0]], name="scores")
    model.graph.append(other)
    (layer,) = layers(model)
    assert layer.feeds_attention


def test_what_an_attention_takes_packed_feeds_it() -> None:
    model = linear(floats(64, 64))
    (last,) = model.graph
    packed = ir.node("MultiHeadAttention", last.outputs, domain="com.microsoft", name="attention")
    model.graph.append(packed)
    (layer,) = layers(model)
    assert layer.feeds_attention


def rows_graph(*inputs: tuple[str, list[str | int]]) -> ir.Model:
    """A graph that multiplies each input, given by name and shape, by a weight of its own."""
    weight = np.ones((32, 32), np.float32)
    nodes = [helper.make_node("MatMul", [n, f"{n}_w"], [f"{n}_y"], name=n) for n, _ in inputs]
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs],
        [helper.make_tensor_value_info(f"{n}_y", TensorProto.FLOAT, None) for n, _ in inputs],
        [numpy_helper.from_array(weight, f"{n}_w") for n, _ in inputs],
    )
    return ir.serde.deserialize_model(helper.make_model(graph))


def test_few_rows_are_those_of_a_batch_of_images_or_of_one() -> None:
    model = rows_graph(
        ("tokens", ["batch", "sequence", 32]),
        ("timestep", ["batch", 32]),
        ("pooled", ["batch", 1, 32]),
        ("constant", [1, 32]),
        ("flat", ["batch*sequence", 32]),
        ("several", [4, 32]),
    )
    few = {layer.name: layer.has_few_rows for layer in layers(model)}
    assert few.pop("tokens") is False
    # "flat" is an input here, so that its first axis is one of a batch; inside a graph it is not.
    assert few == {
        "timestep": True,
        "pooled": True,
        "constant": True,
        "flat": True,
        "several": False,
    }


def test_where_all_layers_have_few_rows_none_counts_as_such() -> None:
    model = rows_graph(("x", ["batch", 32]), ("y", ["batch", 32]))
    assert not any(layer.has_few_rows for layer in layers(model))
