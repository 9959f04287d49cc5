"""Folding of Cast, Transpose and Identity nodes between weights and layers.

Exporters write a linear layer's stored weight followed by a Transpose, and a Cast after every
weight of an fp16 checkpoint. Folding replaces the output of the last such node by an initializer,
which is computed from the stored weight when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.quantization.uses import SMALLEST_WEIGHT, LayerKind, use_of

FOLDED_MOVES = frozenset({"Cast", "Identity", "Transpose"})
FOLDED_TYPES = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_ORIGIN = "sdpack.origin"


@dataclass(frozen=True)
class End:
    """One use of a stored weight, directly or behind Cast, Transpose and Identity nodes.

    Attributes:
        node: the node that uses it.
        place: index of the node's input.
        value: the node's input value.
        order: the weight's axes in the order in which the node receives them.
        casts: the types that the weight is converted to on the way.
    """

    node: ir.Node
    place: int
    value: ir.Value
    order: tuple[int, ...]
    casts: tuple[ir.DataType, ...]

    @property
    def use(self) -> tuple[LayerKind, int] | None:
        """The kind of layer, and the stored weight's output axis; None if it is not a layer."""
        use = use_of(self.node, self.place, len(self.order))
        if use is None:
            return None
        kind, axis = use
        return kind, self.order[axis]

    def flip_transpose(self) -> None:
        """Make a Gemm read the other order of its matrix's axes, in place."""
        attributes = self.node.attributes
        flipped = 1 - attributes.get_int("transB", 0)
        attributes["transB"] = ir.AttrInt64("transB", flipped)


@dataclass(frozen=True)
class FoldedWeight:
    """The stored tensor of a folded weight, and the folded operations."""

    tensor: ir.TensorProtocol
    order: tuple[int, ...]
    casts: tuple[ir.DataType, ...]

    @property
    def shape(self) -> ir.Shape:
        """The shape after folding."""
        tensor = self.tensor
        sizes = tensor.shape.numpy()
        return ir.Shape([sizes[axis] for axis in self.order])

    @property
    def is_narrow(self) -> bool:
        """Whether the stored type has fewer bytes than fp32."""
        stored, wide = self.tensor.dtype, ir.DataType.FLOAT
        return stored.itemsize < wide.itemsize

    def values(self) -> NDArray[np.generic]:
        """Read the stored tensor, and apply the folded operations."""
        array: NDArray[np.generic] = self.tensor.numpy()
        for dtype in self.casts:
            array = array.astype(dtype.numpy())
        return np.ascontiguousarray(array.transpose(self.order))


def ends_of(weight: ir.Value, rank: int) -> list[End]:
    """Return every use of a stored weight, including those behind Cast, Transpose and Identity.

    Args:
        weight: the stored weight.
        rank: its number of axes; a value in a subgraph may lack a shape.
    """
    return list(_ends(weight, tuple(range(rank)), (), weight.dtype))


def _ends(
    value: ir.Value,
    order: tuple[int, ...],
    casts: tuple[ir.DataType, ...],
    dtype: ir.DataType | None,
) -> Iterator[End]:
    for use in value.uses():
        node = use.node
        moved = node.outputs[0] if node.op_type in FOLDED_MOVES and node.domain == "" else None
        if moved is None or moved.is_graph_output():
            yield End(node, use.idx, value, order, casts)
        elif node.op_type == "Transpose":
            axes = node.attributes.get_ints("perm", None) or range(len(order))[::-1]
            yield from _ends(moved, tuple(order[axis] for axis in axes), casts, dtype)
        elif node.op_type == "Cast":
            to = ir.DataType(node.attributes.get_int("to", 0))
            yield from _ends(moved, order, casts if to is dtype else (*casts, to), to)
        else:
            yield from _ends(moved, order, casts, dtype)


def fold_weights(model: ir.Model) -> None:
    """Replace folded weights of layers by initializers, in place.

    A weight is folded if all its uses agree; several layers then share one initializer. A Gemm
    adopts the order of axes that a MatMul with the same weight needs.
    """
    graph = model.graph
    for weight in list(graph.initializers.values()):
        tensor = weight.const_value
        if tensor is None or tensor.dtype not in FOLDED_TYPES or tensor.size < SMALLEST_WEIGHT:
            continue
        if weight.is_graph_input() or weight.is_graph_output():
            continue
        ends = ends_of(weight, len(tensor.shape))
        if any(end.value is not weight for end in ends) and _agree(model, ends):
            _fold(model, weight, ends)


def _agree(model: ir.Model, ends: list[End]) -> bool:
    """Whether one initializer can serve all these uses."""
    first = ends[0]
    if first.use is None or any(end.node.graph is not model.graph for end in ends):
        return False
    if any((end.use, end.casts) != (first.use, first.casts) for end in ends):
        return False
    if any(end.value.dtype is not ir.DataType.FLOAT for end in ends):
        return False
    orders = {end.order for end in ends if end.node.op_type != "Gemm"}
    return len(orders) < 2 and not any(cast not in FOLDED_TYPES for cast in first.casts)


def _fold(model: ir.Model, weight: ir.Value, ends: list[End]) -> None:
    order = next((end.order for end in ends if end.node.op_type != "Gemm"), ends[0].order)
    tensor, name, chain = weight.const_value, str(weight.name), _chain(weight)
    assert tensor is not None
    origin = FoldedWeight(tensor, order, ends[0].casts)
    del model.graph.initializers[name]
    folded = _lazy(name, origin)
    for end in ends:
        end.node.replace_input_with(end.place, folded)
        if end.order != order:  # a Gemm, of a matrix
            end.flip_transpose()
    model.graph.remove(chain, safe=True)
    model.graph.register_initializer(folded)


def _chain(value: ir.Value) -> list[ir.Node]:
    """Return the folded nodes behind a weight, in topological order."""
    moves = []
    for use in value.uses():
        if use.node.op_type in FOLDED_MOVES:
            moves += [use.node, *_chain(use.node.outputs[0])]
    return moves


def _lazy(name: str, origin: FoldedWeight) -> ir.Value:
    dtype, shape = ir.DataType.FLOAT, origin.shape
    tensor = ir.LazyTensor(lambda: ir.tensor(origin.values()), dtype, shape, name=name)
    initializer = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=tensor)
    initializer.meta[_ORIGIN] = origin
    return initializer


def stored_bytes(weight: ir.Value) -> int:
    """Return the bytes per element of a layer's weight in the original file."""
    origin: FoldedWeight | None = weight.meta.get(_ORIGIN)
    tensor = weight.const_value if origin is None else origin.tensor
    assert tensor is not None
    return int(tensor.dtype.itemsize)


def keep_narrow(model: ir.Model, weight: ir.Value) -> None:
    """Store a folded weight in its original 16 bits, followed by a Cast; in place.

    This keeps weights that are not quantized from doubling in size. Weights that were not folded,
    or not in 16 bits, stay unchanged.
    """
    origin: FoldedWeight | None = weight.meta.get(_ORIGIN)
    if origin is None or not origin.is_narrow:
        return
    name, source, shape = str(weight.name), origin.tensor, origin.shape

    def make() -> ir.TensorProtocol:
        return ir.tensor(np.ascontiguousarray(source.numpy().transpose(origin.order)))

    stored = ir.Value(
        name=name,
        type=ir.TensorType(source.dtype),
        shape=shape,
        const_value=ir.LazyTensor(make, source.dtype, shape, name=name),
    )
    first = min((use.node for use in weight.uses()), key=list(model.graph).index)
    value = stored
    names = _free_names(model, f"{name}_cast")
    for dtype, free in zip(origin.casts, names, strict=False):
        node = ir.node("Cast", [value], {"to": dtype}, name=free)
        value = node.outputs[0]
        value.name, value.type = free, ir.TensorType(dtype)
        value.shape = shape
        model.graph.insert_before(first, node)
    del model.graph.initializers[name]
    weight.replace_all_uses_with(value)
    model.graph.register_initializer(stored)


def _free_names(model: ir.Model, prefix: str) -> Iterator[str]:
    """Yield names with this prefix that no value or node of the model has."""
    taken = {value.name for graph in model.graphs() for value in graph.initializers.values()}
    taken |= {value.name for value in model.graph.inputs}
    for node in model.graph.all_nodes():
        taken |= {node.name, *(value.name for value in node.outputs)}
    return (name for name in (f"{prefix}_{number}" for number in count()) if name not in taken)
