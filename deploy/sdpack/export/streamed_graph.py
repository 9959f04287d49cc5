"""Graphs whose large weights are copied from their files when the graph is written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from sdpack.export.streamed import StoredWeight
from sdpack.rewrite.writer import permutation


def withhold(model: ir.Model, stored: Mapping[str, StoredWeight]) -> None:
    """Take the placeholders' values from a graph, so that nothing is computed from them."""
    for name, value in model.graph.initializers.items():
        if name in stored:
            value.const_value = None


def supply(model: ir.Model, stored: Mapping[str, StoredWeight]) -> None:
    """Let a graph's weights be read from their files when it is written, transposed if needed."""
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or source.name not in stored:
            continue
        order, (made,) = permutation(node), node.outputs
        name = f"{source.name}_transposed_{'_'.join(map(str, order))}"
        if name not in graph.initializers:
            value = ir.Value(name=name, type=source.type, shape=_permuted(source, order))
            value.const_value = _lazy(value, stored[str(source.name)], order)
            graph.register_initializer(value)
        made.replace_all_uses_with(graph.initializers[name])
        graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if name not in stored:
            continue
        if value.uses() or value.is_graph_output():
            value.const_value = _lazy(value, stored[name], None)
        else:
            graph.initializers.pop(name)


def _permuted(source: ir.Value, order: tuple[int, ...]) -> ir.Shape:
    assert source.shape is not None
    return ir.Shape([source.shape[axis] for axis in order])


def _lazy(value: ir.Value, place: StoredWeight, order: tuple[int, ...] | None) -> ir.LazyTensor:
    """A tensor that is read whenever it is asked for, and not kept."""

    def read() -> ir.TensorProtocol:
        weights = place.read().numpy()
        whole = weights if order is None else np.ascontiguousarray(weights.transpose(order))
        return ir.Tensor(whole, name=value.name)

    assert value.shape is not None
    return ir.LazyTensor(read, ir.DataType.FLOAT, value.shape, cache=False, name=value.name)
