"""Nodes and inputs that do not support a 16-bit type, according to the ONNX schemas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import onnx_ir as ir
from onnx.defs import OpSchema, SchemaError, get_schema

# Attributes that select an operator's output type. These operators (random numbers, windows) stay
# in fp32, because some have only fp32 kernels and their outputs need the precision.
MAKES_TYPE = ("dtype", "output_datatype")
WITHOUT_HALF = frozenset({"Range", "RoiAlign"})  # despite their schemas
STASHED = frozenset({"LayerNormalization"})  # its statistics outputs are always fp32
FLOAT_INPUTS = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}
_TYPES = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}
_FLOAT = "tensor(float)"


def stays_wide(model: ir.Model, node: ir.Node, dtype: ir.DataType) -> bool:
    """Whether a node must compute in fp32 in a graph of this 16-bit type.

    That is so if its operator does not support the type, if an attribute selects its output type,
    or if it has sequences or optionals of fp32 tensors, which Cast cannot convert.
    """
    if node.op_type in WITHOUT_HALF or any(_is_container(v) for v in (*node.inputs, *node.outputs)):
        return True
    schema = _schema_of(model, node, dtype)
    if schema is None:
        return False
    if any(name in schema.attributes for name in MAKES_TYPE):
        return True
    outputs = _used_outputs(schema, node)
    output_types = set(outputs.values())
    if node.op_type in STASHED and max(outputs, default=0) > 0:
        return True
    if any(_is_float_only(schema, schema_type, dtype) for schema_type in output_types):
        return True
    input_types = {_formal(schema.inputs, place).type_str for place in _float_inputs(schema, node)}
    return any(_is_float_only(schema, t, dtype) and t in output_types for t in input_types)


def float_inputs(model: ir.Model, node: ir.Node, dtype: ir.DataType) -> frozenset[int]:
    """Return the indices of inputs that stay fp32 in a node that computes in this 16-bit type."""
    fixed = FLOAT_INPUTS.get(node.op_type, frozenset())
    schema = _schema_of(model, node, dtype)
    if schema is None:
        return fixed
    return fixed | {
        place
        for place in _float_inputs(schema, node)
        if _is_float_only(schema, _formal(schema.inputs, place).type_str, dtype)
    }


def _is_container(value: ir.Value | None) -> bool:
    contained = value is not None and isinstance(value.type, (ir.SequenceType, ir.OptionalType))
    return contained and value is not None and value.dtype is ir.DataType.FLOAT


def _schema_of(model: ir.Model, node: ir.Node, dtype: ir.DataType) -> OpSchema | None:
    """Return the schema of a node's operator, or None if ONNX does not define it.

    For bf16 this is the newest schema: operators gained the type late, but compilers accept it in
    any opset.
    """
    graph = model.graph
    opset = graph.opset_imports.get(node.domain, 0)
    newest = dtype is ir.DataType.BFLOAT16
    return _schema(node.op_type, 0 if newest else opset, node.domain)


@cache
def _schema(op_type: str, opset: int, domain: str) -> OpSchema | None:
    try:
        if opset == 0:
            return get_schema(op_type, domain=domain)
        return get_schema(op_type, opset, domain)
    except SchemaError:
        return None


def _formal(formals: Sequence[OpSchema.FormalParameter], place: int) -> OpSchema.FormalParameter:
    """Return the formal parameter at an index; the last one may be variadic."""
    return formals[min(place, len(formals) - 1)]


def _float_inputs(schema: OpSchema, node: ir.Node) -> list[int]:
    if not schema.inputs:
        return []
    return [
        place
        for place, value in enumerate(node.inputs)
        if value is not None and value.dtype is ir.DataType.FLOAT
    ]


def _used_outputs(schema: OpSchema, node: ir.Node) -> dict[int, str]:
    """Return index and schema type of the node's used fp32 outputs."""
    return {
        place: _formal(schema.outputs, place).type_str
        for place, value in enumerate(node.outputs)
        if value.dtype is ir.DataType.FLOAT and (value.uses() or value.is_graph_output())
    }


def _is_float_only(schema: OpSchema, schema_type: str, dtype: ir.DataType) -> bool:
    """Whether a schema type allows fp32 but not the 16-bit type."""
    allowed = {schema_type}
    for constraint in schema.type_constraints:
        if constraint.type_param_str == schema_type:
            allowed = set(constraint.allowed_type_strs)
    return _FLOAT in allowed and _TYPES[dtype] not in allowed
