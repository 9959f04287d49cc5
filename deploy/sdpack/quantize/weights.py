"""Integer weights: DequantizeLinear in front of every Conv, Gemm and MatMul with a fixed weight.

    int8   one scale an output channel
    int4   MatMul and Gemm: one scale for each block of 32 along the summed axis, where 32 divides
           it, so that an outlier costs only its block; otherwise, and in Conv, int8

TensorRT takes four-bit weights in MatMul and Gemm alone, and eight-bit ones by channel alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

WEIGHTED = ("Conv", "Gemm", "MatMul")
BLOCK_SIZE = 32
LARGEST = {4: 7, 8: 127}
INTEGER = {4: np.dtype(ml_dtypes.int4), 8: np.dtype(np.int8)}
SMALLEST_WEIGHT = 1024  # numbers; below that a scale costs more than it saves

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Weighted:
    """A node that multiplies its first input by a fixed weight.

    Attributes:
        output_axis: the weight's axis of output channels.
        summed_axis: the weight's axis that is summed over; None in a Conv, which has several.
    """

    node: ir.Node
    weight: ir.Value
    output_axis: int
    summed_axis: int | None

    @property
    def values(self) -> Floats:
        assert self.weight.const_value is not None
        return self.weight.const_value.numpy()


def weighted_nodes(model: ir.Model, keep: Set[str] = frozenset()) -> Iterator[Weighted]:
    """Every Conv, Gemm and MatMul whose second input is a weight worth quantizing.

    Args:
        keep: names of nodes to leave as they are.
    """
    for node in model.graph:
        if node.name in keep or node.op_type not in WEIGHTED or len(node.inputs) < 2:
            continue
        weight = node.inputs[1]
        if weight is None or weight.const_value is None or not weight.is_initializer():
            continue
        if weight.const_value.size < SMALLEST_WEIGHT:
            continue
        if node.op_type == "Conv":
            yield Weighted(node, weight, 0, None)
        elif weight.const_value.shape.rank() == 2:
            transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
            yield Weighted(node, weight, *((0, 1) if transposed else (1, 0)))


@dataclass(frozen=True)
class Quantized:
    """Integers and the scales that undo them; `block_size` 0 means one scale a channel."""

    integers: NDArray[np.generic]
    scales: Floats
    axis: int
    block_size: int


def quantize_channels(values: Floats, axis: int, bits: int = 8) -> Quantized:
    """One scale for each index of `axis`, rounded to nearest, symmetric."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scales = _scales(np.abs(values).max(axis=others, keepdims=True), values.dtype, bits)
    return Quantized(_rounded(values, scales, bits), scales.reshape(-1), axis, 0)


def quantize_blocks(values: Floats, axis: int, block_size: int, bits: int = 4) -> Quantized:
    """One scale for each `block_size` numbers along `axis`, which it must divide."""
    shape = list(values.shape)
    shape[axis : axis + 1] = [shape[axis] // block_size, block_size]
    blocks = values.reshape(shape)
    scales = _scales(np.abs(blocks).max(axis=axis + 1, keepdims=True), values.dtype, bits)
    integers = _rounded(blocks, scales, bits).reshape(values.shape)
    return Quantized(integers, scales.squeeze(axis + 1), axis, block_size)


def _scales(largest: Floats, dtype: np.dtype[np.floating], bits: int) -> Floats:
    """Scales in the weight's own type; a channel of zeros gets 1."""
    scales = (largest.astype(np.float32) / LARGEST[bits]).astype(dtype)
    return np.where(scales == 0, dtype.type(1), scales)


def _rounded(values: Floats, scales: Floats, bits: int) -> NDArray[np.generic]:
    steps = np.rint(values.astype(np.float32) / scales.astype(np.float32))
    return np.clip(steps, -LARGEST[bits], LARGEST[bits]).astype(np.int8).astype(INTEGER[bits])


def quantize_weight(weighted: Weighted, bits: int) -> Quantized:
    """The weight of one node at that many bits, or at eight where four are not to be had."""
    values, axis = weighted.values, weighted.summed_axis
    if bits == 4 and axis is not None and values.shape[axis] % BLOCK_SIZE == 0:
        return quantize_blocks(values, axis, BLOCK_SIZE)
    return quantize_channels(values, weighted.output_axis)


def replace_weights(model: ir.Model, bits: int, keep: Set[str] = frozenset()) -> int:
    """Give every weighted node integer weights; returns how many weights that were.

    The model is changed in place; nodes named in `keep` stay as they are.
    """
    done: dict[ir.Value, ir.Value] = {}
    for weighted in list(weighted_nodes(model, keep)):
        if weighted.weight not in done:
            quantized = quantize_weight(weighted, bits)
            done[weighted.weight] = _insert_dequantize(model, weighted, quantized)
        weighted.node.replace_input_with(1, done[weighted.weight])
    for weight in done:
        if not weight.uses() and weight.name is not None:
            del model.graph.initializers[weight.name]
    return len(done)


def _insert_dequantize(model: ir.Model, weighted: Weighted, quantized: Quantized) -> ir.Value:
    name = str(weighted.weight.name)
    attributes: dict[str, int] = {"axis": quantized.axis}
    if quantized.block_size:
        attributes["block_size"] = quantized.block_size
    node = ir.node(
        "DequantizeLinear",
        [
            add_constant(model, f"{name}_integers", quantized.integers),
            add_constant(model, f"{name}_scales", quantized.scales),
        ],
        attributes,
        name=f"{name}_dequantize",
        outputs=[
            ir.Value(
                name=f"{name}_dequantized",
                type=ir.TensorType(ir.DataType.from_numpy(quantized.scales.dtype)),
                shape=ir.Shape(quantized.integers.shape),
            )
        ],
    )
    model.graph.insert_before(weighted.node, node)
    return node.outputs[0]


def add_constant(model: ir.Model, name: str, values: NDArray[np.generic]) -> ir.Value:
    """A new initializer."""
    tensor = ir.tensor(values, name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(values.shape),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value
