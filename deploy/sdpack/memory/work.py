"""The operations of a graph, and the memory that they read and write."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from sdpack.memory.liveness import Bindings, bind, tensor_bytes

PASSED_ON = frozenset({"DequantizeLinear", "Cast", "Reshape", "Transpose", "Identity", "Squeeze"})
"""Operators between a stored weight and the operator that uses it; compilers fold them."""
REDUCING = frozenset(
    {
        "Attention",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "MultiHeadAttention",
        "ReduceMean",
        "Resize",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "Softmax",
    }
)
"""Operators that compilers do not fuse into the product before them."""


@dataclass(frozen=True)
class NodeWork:
    """What one node computes and moves.

    Attributes:
        macs: multiply-accumulate operations.
        moved_bytes: bytes of its inputs and outputs, with weights as they are stored.
        bits: 8 for a product of two quantized inputs, else the bits of its output's numbers.
    """

    macs: float
    moved_bytes: int
    bits: int = 16


def graph_work(model: ir.Model, bindings: Bindings) -> list[NodeWork]:
    """Return the work of the nodes that take time: products, and what is not fused into them.

    Changes the model: its shapes become numbers, and missing shapes are inferred.

    Args:
        bindings: values of "batch", "height" and other symbolic sizes.
    """
    bind(model, bindings)
    return list(_works(model))


def _works(model: ir.Model) -> Iterator[NodeWork]:
    for node in model.graph:
        macs = _macs(node)
        if macs is None and node.op_type not in REDUCING:
            continue
        moved = sum(_stored_bytes(value) for value in (*node.inputs, *node.outputs) if value)
        yield NodeWork(macs or 0.0, moved, _bits(node))


def _macs(node: ir.Node) -> float | None:
    """The multiply-accumulate operations of a product; None for other nodes."""
    output = node.outputs[0] if node.outputs else None
    elements = None if output is None else _elements(output)
    if elements is None or len(node.inputs) < 2:
        return None
    first, second = (_sizes(value) for value in node.inputs[:2])
    match node.op_type:
        case "Conv" | "ConvTranspose" if second:
            # A weight of a convolution is (out, in / groups, kernel ...).
            per_output = math.prod(second[1:])
            return float(elements * per_output)
        case "MatMul" if first:
            return float(elements * first[-1])
        case "Gemm" if first:
            transposed = node.attributes.get("transA")
            is_transposed = transposed is not None and bool(transposed.as_int())
            return float(elements * first[0 if is_transposed else -1])
        case "Attention" | "MultiHeadAttention" if first:
            return _attention_macs(node)
    return None


def _attention_macs(node: ir.Node) -> float | None:
    """Both products of attention: queries and keys, and probabilities and values."""
    query, key = (_sizes(value) for value in node.inputs[:2])
    if not query or not key:
        return None
    return 2.0 * math.prod(query) * key[-2]


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    sizes = tuple(value.shape)
    if not all(isinstance(size, int) for size in sizes):
        return None
    return tuple(int(size) for size in sizes if isinstance(size, int))


def _elements(value: ir.Value) -> int | None:
    sizes = _sizes(value)
    return None if sizes is None else math.prod(sizes)


def _stored_bytes(value: ir.Value) -> int:
    """Bytes of a tensor; of a weight, as it is stored."""
    stored = _source(value).const_value
    return int(stored.nbytes) if stored is not None else tensor_bytes(value) or 0


def _source(value: ir.Value) -> ir.Value:
    """The value that a tensor is made of by operators that compilers fold into its user."""
    node = value.producer()
    while node is not None and node.op_type in PASSED_ON and node.inputs and node.inputs[0]:
        value = node.inputs[0]
        node = value.producer()
    return value


def _bits(node: ir.Node) -> int:
    """8 if both inputs of a product are quantized, else the bits of its output's numbers."""
    inputs = node.inputs[:2]
    if len(inputs) == 2 and all(value is not None and _is_quantized(value) for value in inputs):
        return 8
    dtype = node.outputs[0].dtype
    return 16 if dtype is None else int(dtype.bitwidth)


def _is_quantized(value: ir.Value) -> bool:
    source = _source(value)
    made_by = source.producer()
    if made_by is not None:
        return made_by.op_type == "QuantizeLinear"
    return source.dtype is not None and source.dtype.bitwidth <= 8
