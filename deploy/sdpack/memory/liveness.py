"""How many bytes of a graph's tensors are alive at once, from the graph alone.

Nodes run in the graph's order; a tensor lives from the node that makes it to the last one that
reads it. Views (Reshape and its like) share their source's memory. The exporter writes symbolic
sizes such as "2*height + 2"; bound to numbers they give every size without running anything.
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
    """The largest moment of a graph.

    Attributes:
        peak_bytes: of tensors that are no weights.
        node: the name of the node that runs then.
        unknown: tensors whose size the graph does not tell, counted as nothing.
    """

    peak_bytes: int
    node: str
    unknown: tuple[str, ...]


def liveness(model: ir.Model, bindings: Bindings) -> Liveness:
    """The peak of live tensors with the graph's symbolic sizes bound to numbers.

    The model is changed: its shapes are numbers afterwards, those the exporter left out inferred.

    Args:
        bindings: "batch", "height" ... to their values.
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
    """For every view, the tensor whose memory it shows."""
    found: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        if node.op_type in VIEWS and node.inputs and node.inputs[0] is not None:
            first = node.inputs[0]
            found[node.outputs[0]] = found.get(first, first)
    return found


def bind(model: ir.Model, bindings: Bindings) -> None:
    """Give every tensor its shape in numbers, as far as they follow from the bindings."""
    made = [value for node in model.graph for value in node.outputs]
    for value in (*model.graph.inputs, *made, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([_number(size, bindings) for size in value.shape])
    ShapeInferencePass(data_prop=True)(model)


def passed_bytes(model: ir.Model, bindings: Bindings) -> int:
    """Bytes of the graph's inputs and outputs together; the model is left as it is."""
    total = 0
    for value in (*model.graph.inputs, *model.graph.outputs):
        sizes = [_number(size, bindings) for size in value.shape or ()]
        known = math.prod(size for size in sizes if size is not None)
        total += math.ceil(known * (value.dtype or ir.DataType.FLOAT).bitwidth / 8)
    return total


def _number(size: int | ir.SymbolicDim, bindings: Bindings) -> int | None:
    if isinstance(size, int) or size.value is None:
        return size if isinstance(size, int) else None
    try:
        return int(evaluate(size.value, bindings))
    except ExportError:
        return None


def _sizes(model: ir.Model, nodes: list[ir.Node]) -> tuple[dict[ir.Value, int], list[str]]:
    """Bytes of every tensor that is no weight, and the names of those that are not known."""
    sizes: dict[ir.Value, int] = {}
    unknown = []
    made = [value for node in nodes for value in node.outputs]
    for value in (*model.graph.inputs, *made):
        found = tensor_bytes(value)
        if found is None:
            unknown.append(str(value.name))
        else:
            sizes[value] = found
    return sizes, unknown


def tensor_bytes(value: ir.Value) -> int | None:
    """Bytes of a tensor, or None if its type or shape is not known."""
    if value.shape is None or value.dtype is None:
        return None
    if not all(isinstance(size, int) for size in value.shape):
        return None
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.bitwidth / 8)


def evaluate(expression: str, bindings: Bindings) -> float:
    """The value of an arithmetic expression over named sizes; nothing else is executed.

    Raises:
        ExportError: a name is not bound, or it is no arithmetic.
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
