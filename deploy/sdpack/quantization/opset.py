"""Checks of a graph's opset, with instructions for an upgrade."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from sdpack.errors import QuantizationError
from sdpack.quantization.schemes import Number, Scheme

# The first opsets whose DequantizeLinear supports channels; float8; blocks and four bits.
CHANNELS_SINCE, FLOAT8_SINCE, BLOCKS_SINCE = 13, 19, 21
OBSERVED_SINCE = 9  # the first with Where, which excludes masks from observations


def require_opset(model: ir.Model, schemes: Iterable[Scheme]) -> None:
    """Check that a graph's opset supports these schemes.

    Raises:
        QuantizationError: it is too old.
    """
    for scheme in sorted(schemes, reverse=True):
        needed = CHANNELS_SINCE
        if scheme.block or scheme.number is Number.INT4:
            needed = BLOCKS_SINCE
        elif scheme.number is Number.FP8:
            needed = FLOAT8_SINCE
        _require(model, str(scheme), needed)


def require_observable(model: ir.Model) -> None:
    """Check that a graph's opset supports the nodes that calibration adds.

    Raises:
        QuantizationError: it is too old.
    """
    _require(model, "calibration", OBSERVED_SINCE)


def _require(model: ir.Model, feature: str, needed: int) -> None:
    graph = model.graph
    opset = graph.opset_imports.get("", 1)
    if opset < needed:
        raise QuantizationError(
            f"{feature} needs opset {needed}, but the graph has {opset}; export the model again "
            f"with opset_version={max(needed, BLOCKS_SINCE)}, or convert the graph: python -c "
            '"import onnx, onnx.version_converter as c; '
            f"onnx.save(c.convert_version(onnx.load('OLD.onnx'), {max(needed, BLOCKS_SINCE)}), "
            "'NEW.onnx')\""
        )
