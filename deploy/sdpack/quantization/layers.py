"""The layers of a graph, which hold nearly all of its weights.

matrix        MatMul and Gemm with a constant second input
convolution   Conv
table         Gather of rows, as in embeddings
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.domain.arrays import Float32Array
from sdpack.errors import QuantizationError
from sdpack.quantization.folding import fold_weights
from sdpack.quantization.uses import SMALLEST_WEIGHT, LayerKind, use_of

LAYERS_REVISION = 2  # revision of `layers`; an increase invalidates cached observations
QUANTIZED = frozenset(
    {
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "GatherBlockQuantized",
        "MatMulNBits",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)

ATTENDING = frozenset({"Attention", "Einsum", "MatMul", "MultiHeadAttention"})
# Operators that may stand between a projection and the product of attention.
RESHAPING = frozenset(
    {"Add", "Cast", "Div", "Mul", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
MOVING = ("Einsum", 1)  # an Einsum with one input only reorders, as when patches are reassembled


@dataclass(frozen=True)
class Layer:
    """A weight and the nodes that multiply by it or look up its rows.

    Attributes:
        nodes: the nodes that share the weight, in the graph's order.
        weight: the weight.
        kind: the kind of layer.
        output_axis: the weight's axis of output channels, or of rows for a table.
        feeds_attention: whether it computes queries, keys or values of attention.
        has_few_rows: whether it is a matrix whose input has one row per image, such as an embedding
            of the timestep, in a graph where others have one per token or pixel.
    """

    nodes: tuple[ir.Node, ...]
    weight: ir.Value
    kind: LayerKind
    output_axis: int
    feeds_attention: bool = False
    has_few_rows: bool = False

    @property
    def name(self) -> str:
        """Name of the first node."""
        return str(self.nodes[0].name)

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """The values that the weight is multiplied with, without duplicates; empty for a table."""
        if self.kind is LayerKind.TABLE:
            return ()
        return tuple(dict.fromkeys(node.inputs[0] for node in self.nodes if node.inputs[0]))

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The weight's tensor."""
        assert self.weight.const_value is not None
        return self.weight.const_value

    @cached_property
    def shape(self) -> tuple[int, ...]:
        tensor = self.tensor
        return tuple(tensor.shape.numpy())

    @property
    def size(self) -> int:
        """Number of elements of the weight."""
        return int(np.prod(self.shape))

    @property
    def outputs(self) -> int:
        """Number of rows of `matrix`: output channels."""
        return self.shape[self.output_axis]

    @property
    def summed(self) -> int:
        """Number of columns of `matrix`: the elements that each output sums over."""
        return self.size // self.outputs

    def matrix(self) -> Float32Array:
        """The weight as float32 (outputs, summed), read again each time."""
        values = self.tensor.numpy()
        rows = values if self.output_axis == 0 else values.T
        return np.ascontiguousarray(rows.reshape(self.outputs, -1), dtype=np.float32)

    def folded(self, rows: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn an array (outputs, summed) into the weight's own shape."""
        return np.ascontiguousarray(rows.reshape(self.shape) if self.output_axis == 0 else rows.T)


def layers(model: ir.Model) -> list[Layer]:
    """Return the layers of a graph whose weights are worth quantizing; modifies the graph.

    Excludes weights with fewer than SMALLEST_WEIGHT elements, and those used in different ways.
    Folds weights behind a Cast, Transpose or Identity (`fold_weights`), and gives nodes unique
    names.

    Raises:
        QuantizationError: the graph is already quantized.
    """
    _refuse_quantized(model)
    _name_nodes(model)
    fold_weights(model)
    every = list(_layers(model))
    if all(layer.has_few_rows or layer.kind is LayerKind.TABLE for layer in every):
        return [replace(layer, has_few_rows=False) for layer in every]
    return every


def _layers(model: ir.Model) -> Iterator[Layer]:
    visited: set[ir.Value] = set()
    order = {node: place for place, node in enumerate(model.graph)}
    for node in model.graph:
        for value in node.inputs[:2]:
            if value is None or value in visited or not _worthwhile(value):
                continue
            visited.add(value)
            rank = len(value.const_value.shape) if value.const_value is not None else 0
            uses = [use_of(u.node, u.idx, rank) for u in value.uses()]
            if uses[0] is not None and len(set(uses)) == 1:
                users = {u.node for u in value.uses()}
                if users.issubset(order):
                    kind, axis = uses[0]
                    nodes = tuple(sorted(users, key=order.__getitem__))
                    is_matrix = kind is LayerKind.MATRIX
                    attends = is_matrix and any(_feeds_attention(n) for n in nodes)
                    few = is_matrix and all(_has_few_rows(n) for n in nodes)
                    yield Layer(nodes, value, kind, axis, attends, few)


def _has_few_rows(node: ir.Node) -> bool:
    """Whether all axes of a node's input but the last are one, or the images of a batch."""
    value = node.inputs[0]
    if value is None or value.shape is None or not node.graph:
        return False
    batches = {given.shape[0] for given in node.graph.inputs if given.shape}
    batches.discard(ir.SymbolicDim(None))  # sizes without a name may differ
    rows = list(value.shape)[:-1]
    symbols = [size for size in rows if isinstance(size, ir.SymbolicDim)]
    known = [size for size in rows if isinstance(size, int)]
    return all(size in batches for size in symbols) and len(symbols) <= 1 and prod(known) == 1


def _feeds_attention(node: ir.Node) -> bool:
    """Whether a node's output is multiplied with another computed value, as in attention."""
    pending = list(node.outputs)
    while pending:
        for use in pending.pop().uses():
            inputs = use.node.inputs
            if use.node.op_type in RESHAPING or (use.node.op_type, len(inputs)) == MOVING:
                pending += use.node.outputs
            elif use.node.op_type in ATTENDING:
                paired = use.idx < 2 <= len(inputs)  # some operators take a packed QKV tensor
                factor = inputs[1 - use.idx] if paired else None
                if factor is None or factor.const_value is None:
                    return True
    return False


def _worthwhile(value: ir.Value) -> bool:
    tensor = value.const_value
    return (
        value.is_initializer()
        and not value.is_graph_input()
        and not value.is_graph_output()
        and tensor is not None
        and tensor.dtype is ir.DataType.FLOAT
        and tensor.size >= SMALLEST_WEIGHT
    )


def _refuse_quantized(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.op_type in QUANTIZED:
            raise QuantizationError(
                f"the graph is already quantized: {node.name or 'a node'} is a {node.op_type}; "
                "give the fp32 graph it was made from"
            )


def _name_nodes(model: ir.Model) -> None:
    names: set[str] = set()
    for number, node in enumerate(model.graph.all_nodes()):
        if not node.name or node.name in names:
            node.name = f"{node.name or node.op_type}_{number}"
        names.add(node.name)
