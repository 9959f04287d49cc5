"""Weights that are never quantized because they do not belong to a layer, and the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from sdpack.quantization.folding import FOLDED_TYPES, ends_of
from sdpack.quantization.layers import Layer
from sdpack.quantization.uses import SMALLEST_WEIGHT


@dataclass(frozen=True)
class Unquantized:
    """A weight that is not quantized.

    Attributes:
        numbers: its number of elements.
        why: its use, or another reason.
    """

    name: str
    numbers: int
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def listed_words(before: str, weights: Sequence[Unquantized], most: int = 3) -> str:
    """List the first weights and the number of others after `before`; "" if there are none."""
    if not weights:
        return ""
    more = f" and {len(weights) - most} more" if len(weights) > most else ""
    return before + ", ".join(map(str, weights[:most])) + more


def leftovers(model: ir.Model, graph_layers: Sequence[Layer]) -> list[Unquantized]:
    """Return the weights of a graph that do not belong to a layer, largest first.

    Args:
        model: the graph.
        graph_layers: its layers (`layers`).
    """
    own = {layer.weight for layer in graph_layers}
    inner = _inner_nodes(model)
    left = [
        Unquantized(str(value.name), tensor.size, _why(value, tensor, inner))
        for value, tensor in _stored(model)
        if value not in own
    ]
    return sorted(left, key=lambda weight: (-weight.numbers, weight.name))


def _stored(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield large initializers and constants, including those in subgraphs."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and _is_large(value.const_value):
                yield value, value.const_value
    for node in model.graph.all_nodes():
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is not None and attribute.type is ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if _is_large(tensor):
                yield node.outputs[0], tensor


def _is_large(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in FOLDED_TYPES and tensor.size >= SMALLEST_WEIGHT


def _inner_nodes(model: ir.Model) -> dict[ir.Node, str]:
    """Return the nodes in subgraphs, each with the operator of the main graph that owns it."""
    owners: dict[ir.Node, str] = {}
    for node in model.graph:
        for attribute in node.attributes.values():
            graphs = [attribute.value] if attribute.type is ir.AttributeType.GRAPH else []
            if attribute.type is ir.AttributeType.GRAPHS:
                graphs = list(attribute.value)
            owners |= {each: node.op_type for graph in graphs for each in graph.all_nodes()}
    return owners


def _why(value: ir.Value, tensor: ir.TensorProtocol, inner: dict[ir.Node, str]) -> str:
    if value.is_graph_output():
        return "a graph output"
    ends = ends_of(value, len(tensor.shape))
    nodes = [end.node for end in ends]
    owners = sorted({inner[node] for node in nodes if node in inner})
    if owners:
        return f"in the body of {' and '.join(owners)}"
    ops = sorted({node.op_type for node in nodes})
    if not ops:
        return "not used"
    stored = {end.casts[-1] if end.casts else tensor.dtype for end in ends}
    form = "" if stored == {ir.DataType.FLOAT} else f"in {tensor.dtype.name}, "
    return f"{form}used by {' and '.join(ops)}"
