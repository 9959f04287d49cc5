"""Peak bytes of a graph's live tensors, computed from the graph alone.

Nodes run in the graph's order. A tensor is live from the node that computes it to the last node
that reads it. Views (Reshape and similar) share their source's memory. The exporter writes symbolic
sizes such as "2*height + 2"; binding the symbols to numbers gives every size without running the
graph.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from sdpack.errors import ExportError

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
Bindings = Mapping[str, int]

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "Max": max,
    "Min": min,
    "floor": math.floor,
    "ceiling": math.ceil,
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
}


@dataclass(frozen=True)
class Liveness:
    """The peak of a graph's live tensors.

    Attributes:
        peak_bytes: bytes of live tensors at the peak, without weights.
        node: name of the node that runs at the peak.
        unknown: tensors of unknown size, which are not counted.
    """

    peak_bytes: int
    node: str
    unknown: tuple[str, ...]


def liveness(model: ir.Model, bindings: Bindings) -> Liveness:
    """Return the peak of live tensors for these sizes.

    Changes the model: its shapes become numbers, and missing shapes are inferred.

    Args:
        model: the graph.
        bindings: values of "batch", "height" and other symbolic sizes.
    """
    bind(model, bindings)
    nodes = list(model.graph)
    source = _sources(nodes)
    sizes, unknown = _sizes(model, nodes)
    last = {source.get(v, v): -1 for v in model.graph.inputs}
    for step, node in enumerate(nodes):
        for value in (*node.inputs, *node.outputs):
            if value is not None:
                last[source.get(value, value)] = step
    for value in model.graph.outputs:
        last[source.get(value, value)] = len(nodes)
    dying: dict[int, list[ir.Value]] = {}
    for value, step in last.items():
        dying.setdefault(step, []).append(value)
    alive = sum(sizes.get(value, 0) for value in model.graph.inputs)
    peak, where = alive, ""
    for step, node in enumerate(nodes):
        alive += sum(sizes.get(v, 0) for v in node.outputs if source.get(v, v) is v)
        if alive > peak:
            peak, where = alive, str(node.name)
        alive -= sum(sizes.get(value, 0) for value in dying.get(step, ()))
    return Liveness(peak, where, tuple(unknown))


def _sources(nodes: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Return, for every view, the tensor whose memory it shares."""
    sources: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        if node.op_type in VIEWS and node.inputs and node.inputs[0] is not None:
            first = node.inputs[0]
            sources[node.outputs[0]] = sources.get(first, first)
    return sources


def bind(model: ir.Model, bindings: Bindings) -> None:
    """Replace symbolic sizes by numbers where the bindings determine them, in place."""
    computed = [value for node in model.graph for value in node.outputs]
    for value in (*model.graph.inputs, *computed, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([_number(size, bindings) for size in value.shape])
    ShapeInferencePass(data_prop=True)(model)


def passed_bytes(model: ir.Model, bindings: Bindings) -> int:
    """Return the bytes of all inputs and outputs of a graph; does not change the model."""
    total = 0
    for value in (*model.graph.inputs, *model.graph.outputs):
        sizes = [_number(size, bindings) for size in value.shape or ()]
        elements = math.prod(size for size in sizes if size is not None)
        total += math.ceil(elements * (value.dtype or ir.DataType.FLOAT).bitwidth / 8)
    return total


def _number(size: int | ir.SymbolicDim, bindings: Bindings) -> int | None:
    if isinstance(size, int) or size.value is None:
        return size if isinstance(size, int) else None
    try:
        return int(evaluate(size.value, bindings))
    except ExportError:
        return None


def _sizes(model: ir.Model, nodes: list[ir.Node]) -> tuple[dict[ir.Value, int], list[str]]:
    """Return the bytes of every tensor but weights, and the names of those of unknown size."""
    sizes: dict[ir.Value, int] = {}
    unknown = []
    computed = [value for node in nodes for value in node.outputs]
    for value in (*model.graph.inputs, *computed):
        size = tensor_bytes(value)
        if size is None:
            unknown.append(str(value.name))
        else:
            sizes[value] = size
    return sizes, unknown


def tensor_bytes(value: ir.Value) -> int | None:
    """Return the bytes of a tensor, or None if its type or shape is unknown."""
    if value.shape is None or value.dtype is None:
        return None
    if not all(isinstance(size, int) for size in value.shape):
        return None
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.bitwidth / 8)


def evaluate(expression: str, bindings: Bindings) -> float:
    """Evaluate an arithmetic expression over named sizes, without executing code.

    Raises:
        ExportError: a name is not bound, or the expression is not arithmetic.
    """
    try:
        return _value(ast.parse(expression, mode="eval").body, bindings)
    except (SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError) as cause:
        raise ExportError(f"the size {expression!r} cannot be evaluated: {cause!r}") from cause


def _value(node: ast.expr, bindings: Bindings) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            return bindings[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, bindings), _value(right, bindings))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, bindings)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _FUNCTIONS[name](*(_value(a, bindings) for a in arguments))
    raise ValueError(ast.dump(node))
