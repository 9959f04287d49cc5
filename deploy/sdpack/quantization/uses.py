"""Uses of a weight by a node: as a matrix, a convolution's kernel, or a table."""

from __future__ import annotations

from enum import StrEnum

import onnx_ir as ir

SMALLEST_WEIGHT = 1024  # elements; quantizing smaller weights saves too little


class LayerKind(StrEnum):
    """The kind of a layer, by the use of its weight."""

    MATRIX = "matrix"
    CONVOLUTION = "convolution"
    TABLE = "table"


def use_of(node: ir.Node, place: int, rank: int) -> tuple[LayerKind, int] | None:
    """Return how a node uses a weight, and the weight's output axis; None if it is not a layer.

    Args:
        node: the node.
        place: index of the node's input that is the weight.
        rank: the weight's number of axes.
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
