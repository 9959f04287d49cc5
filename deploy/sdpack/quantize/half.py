"""fp16 graphs: ONNX Runtime's converter, with inputs and outputs left in fp32."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
from onnxruntime.transformers.float16 import convert_float_to_float16

from sdpack.errors import QuantizationError


def to_half(path: Path) -> ir.Model:
    """The graph at `path` with weights and arithmetic in fp16.

    Weights beyond fp16's range become its largest numbers. Shapes are left as the exporter wrote
    them; inferring them anew fails beyond 2 GB.

    Raises:
        QuantizationError: the graph cannot be read or converted.
    """
    try:
        model = onnx.load(path)
        converted = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
        half = ir.serde.deserialize_model(converted)
    except Exception as cause:  # onnx and protobuf raise classes of their own
        raise QuantizationError(f"{path} cannot be made fp16: {cause}") from cause
    _tidy(half)
    return half


def _tidy(model: ir.Model) -> None:
    """Mend what the converter leaves: casts out of order, and weights it kept said to be fp16."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            value.dtype = value.const_value.dtype
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type == "Cast" and source is not None and source.dtype == node.outputs[0].dtype:
            node.outputs[0].replace_all_uses_with(source)
            model.graph.remove(node, safe=True)
    model.graph.sort()
