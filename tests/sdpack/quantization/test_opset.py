from __future__ import annotations

import numpy as np
import onnx
import pytest
from sdpack.errors import QuantizationError
from sdpack.quantization.opset import OBSERVED_SINCE, require_observable, require_opset
from sdpack.quantization.schemes import parse_scheme

from tests.sdpack.graphs import linear

MODEL = linear(np.zeros((64, 48), np.float32))


def takes(opset: int, input_type: str, attribute: str | None = None) -> bool:
    """Whether DequantizeLinear of an opset takes numbers of a type, and an attribute."""
    schema = onnx.defs.get_schema("DequantizeLinear", max_inclusive_version=opset)
    types = {each for limit in schema.type_constraints for each in limit.allowed_type_strs}
    return f"tensor({input_type})" in types and (not attribute or attribute in schema.attributes)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("w8", ("int8", "axis")),
        ("fp8", ("float8e4m3fn", None)),
        ("w4", ("int4", "block_size")),
        ("w8:32", ("int8", "block_size")),
    ],
)
def test_an_opset_is_accepted_exactly_if_its_dequantizelinear_supports_the_scheme(
    words: str, needed: tuple[str, str | None]
) -> None:
    for opset in range(10, 22):
        MODEL.graph.opset_imports[""] = opset
        if takes(opset, *needed):
            require_opset(MODEL, [parse_scheme(words)])
        else:
            with pytest.raises(QuantizationError, match=f"{words}.* needs opset .*has {opset};"):
                require_opset(MODEL, [parse_scheme(words)])


def test_calibration_needs_the_opset_that_introduced_where() -> None:
    since = onnx.defs.get_schema("Where", max_inclusive_version=9).since_version
    assert since == OBSERVED_SINCE
    MODEL.graph.opset_imports[""] = since
    require_observable(MODEL)
    MODEL.graph.opset_imports[""] = since - 1
    with pytest.raises(QuantizationError, match="calibration needs opset 9, but the graph has 8"):
        require_observable(MODEL)
