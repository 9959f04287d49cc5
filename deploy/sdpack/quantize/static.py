"""int8 weights and activations: QuantizeLinear and DequantizeLinear around every weighted node.

Weights have one scale a channel, activations one a tensor, all of them symmetric: the form
TensorRT parses and ONNX Runtime fuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np
import onnx_ir as ir

from sdpack.errors import QuantizationError
from sdpack.quantize.weights import LARGEST, add_constant, replace_weights, weighted_nodes


def quantize_static(
    model: ir.Model, ranges: Mapping[str, float], keep: Set[str] = frozenset()
) -> int:
    """Give every weighted node int8 weights and an int8 first input; returns how many nodes.

    The model is changed in place.

    Args:
        ranges: the largest magnitude to represent, by node name (`measure_ranges`).
        keep: names of nodes to leave as they are.

    Raises:
        QuantizationError: a node has no range.
    """
    nodes = [(w.node, w.values.dtype) for w in weighted_nodes(model, keep)]
    missing = [node.name for node, _ in nodes if node.name not in ranges]
    if missing:
        raise QuantizationError(f"no range was measured for {missing[0]}; calibrate this graph")
    by_input: dict[ir.Value, list[ir.Node]] = {}
    for node, _ in nodes:
        assert node.inputs[0] is not None
        by_input.setdefault(node.inputs[0], []).append(node)
    dtype = nodes[0][1] if nodes else np.dtype(np.float32)
    for value, users in by_input.items():
        largest = max(ranges[str(node.name)] for node in users)
        rounded = _insert_pair(model, value, users, np.asarray(largest / LARGEST[8], dtype))
        for node in users:
            node.replace_input_with(0, rounded)
    replace_weights(model, 8, keep)
    return len(nodes)


def _insert_pair(
    model: ir.Model, value: ir.Value, users: list[ir.Node], scale: np.ndarray
) -> ir.Value:
    """Quantize and dequantize `value` in front of the first of its users."""
    name = str(value.name)
    if scale == 0:  # too small for fp16: the smallest number it has
        scale = np.asarray(np.finfo(scale.dtype).tiny, scale.dtype)
    step = add_constant(model, f"{name}_scale", scale)
    zero = add_constant(model, f"{name}_zero", np.asarray(0, np.int8))
    down = ir.node(
        "QuantizeLinear",
        [value, step, zero],
        name=f"{name}_quantize",
        outputs=[
            ir.Value(name=f"{name}_int8", type=ir.TensorType(ir.DataType.INT8), shape=value.shape)
        ],
    )
    up = ir.node(
        "DequantizeLinear",
        [down.outputs[0], step, zero],
        name=f"{name}_dequantize",
        outputs=[
            ir.Value(
                name=f"{name}_rounded",
                type=ir.TensorType(ir.DataType.from_numpy(scale.dtype)),
                shape=value.shape,
            )
        ],
    )
    first = min(users, key=list(model.graph).index)
    model.graph.insert_before(first, [down, up])
    return up.outputs[0]
