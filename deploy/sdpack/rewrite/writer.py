"""Adding nodes to a graph, and symbolic sizes of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
INT64, BOOL = ir.DataType.INT64, ir.DataType.BOOL

Size = int | str
Sizes = tuple[Size, ...]
"""Sizes of axes: numbers, the exporter's names, or, for unnamed ones, own names with "?"."""


class Writer:
    """Adds nodes before the node that computes a value.

    Args:
        made: the value.
        prefix: prefix of the new names; by default the value's name.
    """

    def __init__(self, made: ir.Value, prefix: str | None = None) -> None:
        before = made.producer()
        assert before is not None
        assert isinstance(before.graph, ir.Graph)
        self._before, self._graph, self._prefix = before, before.graph, prefix or made.name

    def name(self, word: str) -> str:
        """Return the name of a new value or node."""
        return f"{self._prefix}_{word}"

    def insert(self, node: ir.Node) -> None:
        self._graph.insert_before(self._before, node)

    def add(
        self,
        word: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        made: tuple[Sizes, ir.DataType | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Add a node, and return its output, whose sizes and type are `made`."""
        name = self.name(word)
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, name=name)
        (value,) = node.outputs
        value.name = name
        describe(value, *made)
        self.insert(node)
        return value

    def split(
        self,
        word: str,
        value: ir.Value,
        axis: int,
        made: Sequence[tuple[Sizes, ir.DataType | None]],
    ) -> Sequence[ir.Value]:
        """Add a Split into equal pieces along an axis, and return them."""
        attributes = {"axis": axis, "num_outputs": len(made)}
        name = self.name(word)
        node = ir.node("Split", [value], attributes, num_outputs=len(made), name=name)
        for number, (piece, described) in enumerate(zip(node.outputs, made, strict=True)):
            piece.name = f"{name}_{number}"
            describe(piece, *described)
        self.insert(node)
        return node.outputs

    def cast(self, word: str, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        if value.dtype is dtype or dtype is None:
            return value
        return self.add(f"{word}_cast", "Cast", [value], (sizes_of(value), dtype), {"to": dtype})

    def size(self, word: str, value: ir.Value, axis: int) -> ir.Value:
        """Add the size of an axis, int64 (1,)."""
        return self.add(word, "Shape", [value], ((1,), INT64), {"start": axis, "end": axis + 1})

    def integers(self, word: str, *values: int) -> ir.Value:
        return self.constant(word, np.asarray(values, np.int64))

    def constant(self, word: str, values: NDArray[np.generic]) -> ir.Value:
        name = self.name(word)
        tensor, shape = ir.tensor(values, name=name), ir.Shape(values.shape)
        kind = ir.TensorType(tensor.dtype)
        value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
        self._graph.register_initializer(value)
        return value


def input_of(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None
    return value


def used_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def scalar(value: ir.Value) -> float | None:
    """Return the number in a constant that broadcasts without changing shapes, or None."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 3:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def sizes_of(value: ir.Value) -> Sizes:
    """Return the sizes of a value's axes; empty if its rank is unknown."""
    sizes = []
    for axis, size in enumerate(value.shape or ()):
        named = size if isinstance(size, int) else size.value
        sizes.append(f"?{value.name}[{axis}]" if named is None else named)
    return tuple(sizes)


def describe(value: ir.Value, sizes: Sizes, dtype: ir.DataType | None) -> None:
    value.type = None if dtype is None else ir.TensorType(dtype)
    value.shape = shape_of(sizes) if sizes else None


def shape_of(sizes: Sizes) -> ir.Shape:
    """Return a shape of these sizes; own names, with "?", become unknown sizes."""
    return ir.Shape([None if str(size).startswith("?") else size for size in sizes])


def elements(shape: ir.Value) -> Sizes:
    """Return the sizes that a shape tensor holds; empty if their number is unknown."""
    tensor, node = ir.convenience.get_const_tensor(shape), shape.producer()
    if tensor is not None:
        return tuple(int(size) for size in tensor.numpy().reshape(-1))
    if node is not None and node.op_type == "Concat":
        parts = [elements(input_of(node, place)) for place in range(len(node.inputs))]
        return sum(parts, ()) if all(parts) else ()
    if node is not None and node.op_type == "Shape":
        sizes, limits = sizes_of(input_of(node, 0)), node.attributes
        return sizes[limits.get_int("start", 0) : limits.get_int("end", len(sizes))]
    if node is not None and node.op_type == "Slice" and len(node.inputs) == 3:
        start, end = (ir.convenience.get_const_tensor(input_of(node, place)) for place in (1, 2))
        if start is not None and end is not None:
            return elements(input_of(node, 0))[int(start.numpy()[0]) : int(end.numpy()[0])]
    return (f"?{shape.name}",) if sizes_of(shape) == (1,) else ()


def agree(value: ir.Value, sizes: Sizes) -> bool:
    """Whether a value has these three sizes, given that the number of elements is the same.

    Two equal sizes then suffice.
    """
    own = sizes_of(value)
    if len(own) != 3 or len(sizes) != 3 or own[2] != sizes[2]:
        return False
    return own[0] == sizes[0] or own[1] == sizes[1]


def permutation(transpose: ir.Node) -> tuple[int, ...]:
    rank = len(sizes_of(input_of(transpose, 0)))
    return tuple(transpose.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def zero_like(like: ir.Value) -> NDArray[np.generic]:
    return np.zeros((), (like.dtype or ir.DataType.FLOAT).numpy())


def lowest_of(dtype: ir.DataType) -> NDArray[np.generic]:
    finfo: Any = ml_dtypes.finfo  # untyped
    return np.asarray(finfo(dtype.numpy()).min, dtype.numpy())


def hand_over(old: ir.Value, new: ir.Value) -> None:
    """Replace all uses of `old` by `new`; a graph output keeps its name."""
    if old.is_graph_output():
        name, old.name = old.name, f"{old.name}_unused"
        new.name = name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def prune(node: ir.Node) -> None:
    """Remove an unused node, and all nodes and initializers that only it used."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        return
    if any(value.uses() or value.is_graph_output() for value in node.outputs):
        return
    inputs = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in inputs:
        maker = value.producer()
        if maker is not None:
            prune(maker)
        elif value.is_initializer() and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)
