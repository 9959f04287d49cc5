"""A part in a precision: which steps lead from its fp32 graph there."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path

import onnx_ir as ir

from sdpack.errors import QuantizationError
from sdpack.precision import Precision
from sdpack.quantize.half import to_half
from sdpack.quantize.static import quantize_static
from sdpack.quantize.weights import replace_weights


def make_variant(
    path: Path,
    precision: Precision,
    computed_in: Precision,
    ranges: Mapping[str, float] | None = None,
    keep: Set[str] = frozenset(),
) -> ir.Model:
    """The fp32 graph at `path` in `precision`, its arithmetic in `computed_in`.

    Args:
        ranges: of activations, by node name; needed for int8 alone.
        keep: names of nodes whose weights stay in `computed_in`.

    Raises:
        QuantizationError: the precision is not made here, or int8 lacks its ranges.
    """
    half = Precision.FP16 in (precision, computed_in)
    model = to_half(path) if half else ir.load(path)
    if precision in (Precision.FP32, Precision.FP16):
        return model
    if precision is Precision.INT8:
        if ranges is None:
            raise QuantizationError(f"{path}: int8 needs ranges of activations; calibrate first")
        quantize_static(model, ranges, keep)
    elif precision in (Precision.W8, Precision.W4):
        replace_weights(model, 8 if precision is Precision.W8 else 4, keep)
    else:
        raise QuantizationError(f"{path}: {precision} is not made yet; choose another precision")
    return model
