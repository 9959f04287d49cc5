"""Conversion of graphs to a 16-bit type: weights and arithmetic; inputs and outputs stay fp32.

Some nodes stay in fp32, with casts around them: those that the caller names, those whose operator
does not support the type, and those that compute the angles of Sin and Cos, because the error of a
rounded angle grows with the angle.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.errors import QuantizationError
from sdpack.quantization.half_support import float_inputs, stays_wide

LARGEST_HALF = 65504.0
HEADROOM = 2
ANGLES = frozenset({"Sin", "Cos"})


def to_half(
    model: ir.Model, fp32_nodes: Set[str] = frozenset(), dtype: ir.DataType = ir.DataType.FLOAT16
) -> None:
    """Convert a model to 16-bit weights and arithmetic, in place.

    Weights beyond fp16's range are clipped to it. Weights are converted one at a time, when the
    graph is written.

    Args:
        model: an fp32 graph.
        fp32_nodes: names of nodes that stay in fp32.
        dtype: FLOAT16 or BFLOAT16.

    Raises:
        QuantizationError: the graph has control flow, whose subgraphs cannot be converted.
    """
    for node in model.graph:
        if any(
            a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for a in node.attributes.values()
        ):
            raise QuantizationError(
                f"{node.name} is a {node.op_type} with a subgraph, which cannot be converted to "
                f"{dtype.name.lower()}; export the model without control flow"
            )
    _Narrowing(model, dtype, fp32_nodes).run()


class _Narrowing:
    def __init__(self, model: ir.Model, dtype: ir.DataType, fp32_nodes: Set[str]) -> None:
        self.model = model
        self.dtype = dtype
        self.wide = {n for n in model.graph if n.name in fp32_nodes or stays_wide(model, n, dtype)}
        self.wide |= _angles(model)
        self.narrowed: dict[ir.Value, ir.Value] = {}
        self.widened: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        graph = self.model.graph
        nodes, outputs = list(graph), list(graph.outputs)
        floats = {v for n in nodes for v in n.outputs if v.dtype is ir.DataType.FLOAT}
        produced = {value: node for node in nodes for value in node.outputs}
        for node in nodes:
            fixed = float_inputs(self.model, node, self.dtype)
            for place, value in enumerate(node.inputs):
                if value is None:
                    continue
                is_float = value in floats or value.dtype is ir.DataType.FLOAT
                if not is_float:
                    continue
                maker = produced.get(value)
                is_wide = maker in self.wide if maker is not None else True
                wants_wide = node in self.wide or place in fixed
                if is_wide and not wants_wide:
                    node.replace_input_with(place, self._narrow(value, maker))
                elif not is_wide and wants_wide:
                    node.replace_input_with(place, self._widen(value, node))
            if node not in self.wide:
                _retype(node, self.dtype)
        for place, value in enumerate(outputs):
            maker = produced.get(value)
            if value in floats and maker is not None and maker not in self.wide:
                graph.outputs[place] = self._fp32_output(value, maker)
        for node in nodes:
            if node not in self.wide:
                for value in node.outputs:
                    if value in floats:
                        value.dtype = self.dtype
        self._drop_idle_casts()
        self._forget_unused()

    def _narrow(self, value: ir.Value, maker: ir.Node | None) -> ir.Value:
        """Return the 16-bit form of an fp32 value."""
        if value not in self.narrowed:
            if value.is_initializer() and value.const_value is not None:
                self.narrowed[value] = self._converted(value)
            else:
                self.narrowed[value] = self._cast(value, self.dtype, "narrow", maker)
        return self.narrowed[value]

    def _widen(self, value: ir.Value, before: ir.Node) -> ir.Value:
        if value not in self.widened:
            maker = value.producer()
            self.widened[value] = self._cast(value, ir.DataType.FLOAT, "wide", maker)
        return self.widened[value]

    def _cast(
        self, value: ir.Value, dtype: ir.DataType, word: str, maker: ir.Node | None
    ) -> ir.Value:
        node = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}_to_{word}")
        cast = node.outputs[0]
        cast.name, cast.type, cast.shape = f"{value.name}_{word}", ir.TensorType(dtype), value.shape
        graph = self.model.graph
        if maker is None:
            graph.insert_before(next(iter(graph)), node)
        else:
            graph.insert_after(maker, node)
        return cast

    def _converted(self, value: ir.Value) -> ir.Value:
        tensor, dtype, name = value.const_value, self.dtype, f"{value.name}_narrow"
        assert tensor is not None
        shape = ir.Shape(tensor.shape.numpy())

        def make() -> ir.TensorProtocol:
            return ir.tensor(_to_type(tensor.numpy(), dtype))

        narrow = ir.LazyTensor(make, dtype, shape, name=name)
        converted = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=narrow)
        graph = self.model.graph
        graph.register_initializer(converted)
        return converted

    def _fp32_output(self, value: ir.Value, maker: ir.Node) -> ir.Value:
        """Return a graph output in fp32, under its original name."""
        name = value.name
        value.name = f"{name}_narrow"
        cast = self._cast(value, ir.DataType.FLOAT, "output", maker)
        cast.name = name
        return cast

    def _drop_idle_casts(self) -> None:
        """Remove casts that became redundant."""
        graph = self.model.graph
        for node in list(graph):
            source = node.inputs[0] if node.inputs else None
            if node.op_type != "Cast" or source is None:
                continue
            cast = node.outputs[0]
            if source.dtype == cast.dtype and not cast.is_graph_output():
                cast.replace_all_uses_with(source)
                graph.remove(node, safe=True)

    def _forget_unused(self) -> None:
        graph = self.model.graph
        for name, initializer in list(graph.initializers.items()):
            if not initializer.uses() and not initializer.is_graph_output():
                del graph.initializers[name]


def widened(model: ir.Model) -> None:
    """Convert a bf16 model to fp32 arithmetic with the same weight values, in place.

    Runtimes without bf16 arithmetic, such as ONNX Runtime's CPU provider, can run the result. The
    weights keep bf16's rounding, but the arithmetic does not.
    """
    narrow, wide, graph = ir.DataType.BFLOAT16, ir.DataType.FLOAT, model.graph
    for initializer in graph.initializers.values():
        tensor = initializer.const_value
        if tensor is not None and tensor.dtype is narrow:
            initializer.const_value = _lazily_widened(tensor)
            initializer.dtype = wide
    for node in graph:
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == narrow:
            node.attributes["to"] = ir.AttrInt64("to", wide)
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.type is ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype is narrow:
                node.attributes["value"] = ir.AttrTensor("value", _lazily_widened(tensor))
        for value in node.outputs:
            if value.dtype is narrow:
                value.dtype = wide


def _lazily_widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    def make() -> ir.TensorProtocol:
        return ir.tensor(tensor.numpy().astype(np.float32))

    return ir.LazyTensor(make, ir.DataType.FLOAT, ir.Shape(tensor.shape.numpy()), name=tensor.name)


def beyond_half(model: ir.Model, peaks: Mapping[str, float]) -> frozenset[str]:
    """Return the names of nodes whose inputs or outputs could overflow fp16.

    Args:
        model: the fp32 graph.
        peaks: largest observed output magnitude of each node, by name (`observe`); other inputs may
            reach HEADROOM times as much.
    """
    makers = {v: n for n in model.graph for v in n.outputs}

    def large(node: ir.Node | None) -> bool:
        return node is not None and peaks.get(str(node.name), 0.0) > LARGEST_HALF / HEADROOM

    return frozenset(
        str(node.name)
        for node in model.graph
        if large(node) or any(large(makers.get(v)) for v in node.inputs if v is not None)
    )


def _angles(model: ir.Model) -> set[ir.Node]:
    """Return Sin and Cos nodes, and all nodes that their inputs depend on."""
    nodes = {node for node in model.graph if node.op_type in ANGLES}
    pending = list(nodes)
    while pending:
        for value in pending.pop().inputs:
            maker = value.producer() if value is not None else None
            if maker is not None and maker not in nodes:
                nodes.add(maker)
                pending.append(maker)
    return nodes


def _retype(node: ir.Node, dtype: ir.DataType) -> None:
    """Change attributes that select fp32 to the 16-bit type."""
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", dtype)
    for name in ("value",):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.type is ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.dtype is ir.DataType.FLOAT:
                values = _to_type(tensor.numpy(), dtype)
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(values))
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        zero = _to_type(np.zeros(1, np.float32), dtype)  # the default is fp32
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(zero))
    for name in ("value_float", "value_floats"):
        attribute = node.attributes.pop(name, None)
        if attribute is not None:
            values = np.asarray(attribute.value, np.float32)
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(_to_type(values, dtype)))


def _to_type(values: NDArray[np.generic], dtype: ir.DataType) -> NDArray[np.generic]:
    if dtype is ir.DataType.BFLOAT16:
        narrow: NDArray[np.generic] = values.astype(ml_dtypes.bfloat16)
        return narrow
    clipped: NDArray[np.generic] = np.clip(values, -LARGEST_HALF, LARGEST_HALF).astype(np.float16)
    return clipped
