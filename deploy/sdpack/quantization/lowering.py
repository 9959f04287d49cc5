"""Quantized weights in the graph, in a form that compilers parse and runtimes keep packed.

    matrix        DequantizeLinear
    convolution   DequantizeLinear per channel; block-wise, of the flattened weight, followed by a
                  Reshape, because compilers support blocks only in matrices
    table         DequantizeLinear, or, if the runtime would unpack the whole table, a Gather of
                  int8 rows that are multiplied by their scales
    inputs        QuantizeLinear and DequantizeLinear, with one scale per tensor

Weights are rounded one layer at a time, when the graph is written, and then freed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.errors import QuantizationError
from sdpack.quantization.layers import Layer
from sdpack.quantization.rounding import Rounded
from sdpack.quantization.schemes import Abilities, Number, Scheme
from sdpack.quantization.uses import LayerKind

Make = Callable[[], Rounded]


@dataclass
class _Once:
    """A layer's rounded weight, computed on first use, freed once numbers and scales are read."""

    make: Make
    _rounded: Rounded | None = None
    _read: frozenset[str] = frozenset()

    def read(self, field: str) -> NDArray[np.generic]:
        rounded = self._rounded if self._rounded is not None else self.make()
        self._read |= {field}
        self._rounded = None if len(self._read) == 2 else rounded
        self._read = frozenset() if self._rounded is None else self._read
        values: NDArray[np.generic] = getattr(rounded, field)
        return values


def store(model: ir.Model, layer: Layer, scheme: Scheme, make: Make, abilities: Abilities) -> None:
    """Replace a layer's weight by its quantized form, in place.

    Args:
        model: the graph.
        layer: one of its layers.
        scheme: the layer's scheme.
        make: rounds the weight; called when the graph is written.
        abilities: abilities of the target runtime.
    """
    once = _Once(make)
    name, weight = str(layer.weight.name), layer.weight
    if layer.kind is LayerKind.TABLE and not abilities.packed_tables:
        _look_up(model, layer, once)
    else:
        flat = layer.kind is LayerKind.CONVOLUTION and scheme.block > 0
        unpacked = _unpack(model, layer, scheme, once, flat)
        if flat:
            shape = add_constant(model, f"{name}_shape", np.asarray(layer.shape, np.int64))
            folded = ir.node("Reshape", [unpacked, shape], name=f"{name}_fold")
            folded.outputs[0].name = f"{name}_folded"
            folded.outputs[0].type = unpacked.type
            folded.outputs[0].shape = ir.Shape(layer.shape)
            model.graph.insert_before(layer.nodes[0], folded)
            unpacked = folded.outputs[0]
        for use in list(weight.uses()):
            use.node.replace_input_with(use.idx, unpacked)
    del model.graph.initializers[name]


def _unpack(model: ir.Model, layer: Layer, scheme: Scheme, once: _Once, flat: bool) -> ir.Value:
    """Insert a DequantizeLinear before the layer's first node, and return its output."""
    name = str(layer.weight.name)
    shape = (layer.outputs, layer.summed) if flat else layer.shape
    upright = flat or layer.output_axis == 0
    blocks = layer.summed // scheme.block if scheme.block else 1

    def numbers() -> NDArray[np.generic]:
        rows = once.read("numbers")
        laid = rows.reshape(shape) if upright else rows.T
        return np.ascontiguousarray(laid).astype(scheme.number.dtype)

    def scales() -> NDArray[np.generic]:
        values = once.read("scales").astype(np.float32)
        if not scheme.block:
            return values.reshape(-1)
        return np.ascontiguousarray(values if upright else values.T)

    scale_shape: tuple[int, ...] = (layer.outputs,)
    if scheme.block:
        scale_shape = (layer.outputs, blocks) if upright else (blocks, layer.outputs)
    attributes = {"axis": layer.output_axis if not flat else 0}
    if scheme.block:
        attributes = {"axis": 1 if upright else 0, "block_size": scheme.block}
    stored = [
        _lazy(model, f"{name}_stored", numbers, scheme.number.dtype, shape),
        _lazy(model, f"{name}_scales", scales, np.dtype(np.float32), scale_shape),
    ]
    node = ir.node("DequantizeLinear", stored, attributes, name=f"{name}_unpack")
    node.outputs[0].name = f"{name}_unpacked"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(shape)
    model.graph.insert_before(layer.nodes[0], node)
    return node.outputs[0]


def _look_up(model: ir.Model, layer: Layer, once: _Once) -> None:
    """Replace lookups by a Gather of int8 rows, multiplied by their scales."""
    name = str(layer.weight.name)
    table = _lazy(
        model,
        f"{name}_stored",
        lambda: once.read("numbers").astype(np.int8),
        np.dtype(np.int8),
        layer.shape,
    )
    scales = _lazy(
        model,
        f"{name}_scales",
        lambda: once.read("scales").astype(np.float32),
        np.dtype(np.float32),
        (layer.outputs, 1),
    )
    for place, node in enumerate(layer.nodes):
        prefix, ids, looked_up = f"{name}_{place}", node.inputs[1], node.outputs[0]
        assert ids is not None
        rows = ir.node("Gather", [table, ids], {"axis": 0}, name=f"{prefix}_rows")
        factors = ir.node("Gather", [scales, ids], {"axis": 0}, name=f"{prefix}_factors")
        _describe(rows.outputs[0], f"{prefix}_int8", ir.DataType.INT8, looked_up.shape)
        _describe(factors.outputs[0], f"{prefix}_scale", ir.DataType.FLOAT, None)
        cast = ir.node("Cast", rows.outputs, {"to": ir.DataType.FLOAT}, name=f"{prefix}_cast")
        _describe(cast.outputs[0], f"{prefix}_float", ir.DataType.FLOAT, looked_up.shape)
        product = ir.node("Mul", [cast.outputs[0], factors.outputs[0]], name=f"{prefix}_scaled")
        original_name, looked_up.name = looked_up.name, f"{prefix}_before"
        _describe(product.outputs[0], str(original_name), ir.DataType.FLOAT, looked_up.shape)
        model.graph.insert_before(node, [rows, factors, cast, product])
        looked_up.replace_all_uses_with(product.outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def round_inputs(
    model: ir.Model, chosen: Mapping[str, tuple[Layer, Scheme]], ranges: Mapping[str, float]
) -> None:
    """Insert QuantizeLinear and DequantizeLinear before layers whose scheme rounds inputs.

    Layers that read the same tensor in the same type share one pair.

    Args:
        model: the graph, changed in place.
        chosen: layers and their schemes, by name.
        ranges: largest representable magnitude of each layer's input, by layer.

    Raises:
        QuantizationError: a layer has no range.
    """
    readers: dict[tuple[ir.Value, Number], list[Layer]] = {}
    for layer, scheme in chosen.values():
        if scheme.inputs:
            for value in layer.inputs:
                readers.setdefault((value, scheme.number), []).append(layer)
    place = {node: number for number, node in enumerate(model.graph)}
    for (value, number), users in readers.items():
        missing = [layer.name for layer in users if layer.name not in ranges]
        if missing:
            raise QuantizationError(
                f"the input range of {missing[0]} was not measured; calibrate this graph"
            )
        largest = max(ranges[layer.name] for layer in users)
        nodes = [n for layer in users for n in layer.nodes if n.inputs[0] is value]
        first = min(nodes, key=place.__getitem__)
        rounded = _insert_pair(model, value, number, largest / number.largest, first)
        for node in nodes:
            node.replace_input_with(0, rounded)


def _insert_pair(
    model: ir.Model, value: ir.Value, number: Number, scale: float, before: ir.Node
) -> ir.Value:
    name = f"{value.name}_{number}"
    scale = max(scale, float(np.finfo(np.float16).tiny))  # must be representable in fp16
    step = add_constant(model, f"{name}_scale", np.asarray(scale, np.float32))
    zero = add_constant(model, f"{name}_zero", np.asarray(0, number.dtype))
    down = ir.node("QuantizeLinear", [value, step, zero], name=f"{name}_quantize")
    _describe(down.outputs[0], name, ir.DataType.from_numpy(number.dtype), value.shape)
    up = ir.node("DequantizeLinear", [down.outputs[0], step, zero], name=f"{name}_dequantize")
    _describe(up.outputs[0], f"{name}_rounded", ir.DataType.FLOAT, value.shape)
    model.graph.insert_before(before, [down, up])
    return up.outputs[0]


def _describe(value: ir.Value, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    value.name, value.type, value.shape = name, ir.TensorType(dtype), shape


def add_constant(model: ir.Model, name: str, values: NDArray[np.generic]) -> ir.Value:
    """Add an initializer."""
    return _register(model, name, ir.tensor(values, name=name))


def _lazy(
    model: ir.Model,
    name: str,
    make: Callable[[], NDArray[np.generic]],
    dtype: np.dtype[np.generic],
    shape: Sequence[int],
) -> ir.Value:
    """Add an initializer that is computed when it is read."""
    kind = ir.DataType.from_numpy(dtype)
    tensor = ir.LazyTensor(lambda: ir.tensor(make()), kind, ir.Shape(shape), name=name)
    return _register(model, name, tensor)


def _register(model: ir.Model, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    model.graph.register_initializer(value)
    return value
