from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sdpack.memory.work import graph_work


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, NDArray[Any]],
    shape: Sequence[int | str],
) -> ir.Model:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ir.serde.deserialize_model(made)


def test_a_convolution_multiplies_its_weight_at_every_pixel() -> None:
    weight = np.zeros((8, 4, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    (found,) = graph_work(model([node], {"w": weight}, ["batch", 4, 16, 16]), {"batch": 2})
    assert found.macs == 2 * 16 * 16 * weight.size
    assert found.moved_bytes == 4 * (2 * 4 * 16 * 16 + weight.size + 2 * 8 * 16 * 16)
    assert found.bits == 32


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_a_product_multiplies_rows_by_columns(op: str) -> None:
    node = helper.make_node(op, ["x", "w"], ["y"])
    weight = np.zeros((32, 64), np.float32)
    (found,) = graph_work(model([node], {"w": weight}, ["rows", 32]), {"rows": 5})
    assert found.macs == 5 * 32 * 64


def test_weights_count_as_they_are_stored_and_two_quantized_inputs_have_eight_bits() -> None:
    weight, scale = np.zeros((32, 64), np.int8), np.float32(0.1)
    zero = np.int8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "w": weight,
        "s": np.array(scale),
        "z": np.array(zero),
    }
    (both,) = graph_work(model(nodes, constants, [5, 32]), {})
    assert both.bits == 8
    only_weights = [nodes[2], helper.make_node("MatMul", ["x", "v"], ["y"])]
    (one,) = graph_work(model(only_weights, constants, [5, 32]), {})
    assert one.bits == 32
    assert one.moved_bytes == weight.nbytes + 4 * (5 * 32 + 5 * 64)


def test_what_is_fused_into_a_product_takes_no_time_of_its_own() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"]),
    ]
    product, softmax = graph_work(model(nodes, {"w": np.zeros((32, 8), np.float32)}, [5, 32]), {})
    assert product.macs
    assert (softmax.macs, softmax.moved_bytes) == (0, 2 * 4 * 5 * 8)
