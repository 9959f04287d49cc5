"""How a node uses a weight: as a matrix, a convolution's kernel, or a table."""

from __future__ import annotations

from enum import StrEnum

import onnx_ir as ir

SMALLEST_WEIGHT = 1024  # numbers; below that a scale costs more than it saves


class LayerKind(StrEnum):
    """What a layer does with its weight."""

    MATRIX = "matrix"
    CONVOLUTION = "convolution"
    TABLE = "table"


def use_of(node: ir.Node, place: int, rank: int) -> tuple[LayerKind, int] | None:
    """How a node uses the weight that is its input number `place`, and the weight's output axis.

    Args:
        rank: how many axes the weight has.
    """
    match node.op_type, place:
        case "Conv", 1:
            return LayerKind.CONVOLUTION, 0
        case "MatMul", 1 if rank == 2:
            return LayerKind.MATRIX, 1
        case "Gemm", 1 if node.attributes.get_int("transA", 0) == 0:
            return LayerKind.MATRIX, 0 if node.attributes.get_int("transB", 0) == 1 else 1
        case "Gather", 0 if rank == 2 and node.attributes.get_int("axis", 0) == 0:
            return LayerKind.TABLE, 0
    return None
