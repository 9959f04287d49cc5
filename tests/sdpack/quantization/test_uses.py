from __future__ import annotations

import onnx_ir as ir
import pytest
from sdpack.quantization.uses import LayerKind, use_of

MATRIX, CONVOLUTION, TABLE = LayerKind.MATRIX, LayerKind.CONVOLUTION, LayerKind.TABLE


@pytest.mark.parametrize(
    ("op", "attributes", "place", "rank", "use"),
    [
        # The axis of outputs: y = x @ w has the columns of w; a kernel is (outputs, inputs, ...).
        ("MatMul", {}, 1, 2, (MATRIX, 1)),
        ("Gemm", {}, 1, 2, (MATRIX, 1)),
        ("Gemm", {"transB": 1}, 1, 2, (MATRIX, 0)),
        ("Conv", {}, 1, 4, (CONVOLUTION, 0)),
        ("Conv", {}, 1, 3, (CONVOLUTION, 0)),
        ("Gather", {"axis": 0}, 0, 2, (TABLE, 0)),
        ("Gather", {}, 0, 2, (TABLE, 0)),
        # None: the left factor, a stack of matrices, a transposed input, other axes, bias, indices.
        ("MatMul", {}, 0, 2, None),
        ("MatMul", {}, 1, 3, None),
        ("Gemm", {"transA": 1}, 1, 2, None),
        ("Gemm", {}, 2, 1, None),
        ("Conv", {}, 2, 1, None),
        ("Gather", {"axis": 1}, 0, 2, None),
        ("Gather", {"axis": 0}, 1, 2, None),
        ("ConvTranspose", {}, 1, 4, None),
    ],
)
def test_a_use_has_a_kind_and_an_axis_of_outputs(
    op: str, attributes: dict[str, int], place: int, rank: int, use: tuple[LayerKind, int] | None
) -> None:
    node = ir.node(op, [ir.Value(name=name) for name in "abc"], attributes)
    assert use_of(node, place, rank) == use
