"""Root mean square normalization in the form that ONNX Runtime fuses into one operator.

PyTorch's exporter writes x * (1 / sqrt(mean(x²) + ε)). ONNX Runtime looks for a division.
"""

from __future__ import annotations

import onnx_ir as ir

from sdpack.rewrite.writer import hand_over, input_of, prune, used_once


def divide_by_roots(model: ir.Model) -> int:
    """Replace every product with the reciprocal of a root by a division by the root, in place.

    Returns:
        The number of products that were replaced.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type != "Mul":
            continue
        for place in (0, 1):
            reciprocal = input_of(node, place).producer()
            if reciprocal is not None and _is_of_root(reciprocal):
                _divide(node, input_of(node, 1 - place), reciprocal)
                count += 1
                break
    return count


def _is_of_root(node: ir.Node) -> bool:
    if node.op_type != "Reciprocal" or not used_once(node.outputs[0]):
        return False
    root = input_of(node, 0).producer()
    return root is not None and root.op_type == "Sqrt"


def _divide(product: ir.Node, value: ir.Value, reciprocal: ir.Node) -> None:
    (made,), root = product.outputs, input_of(reciprocal, 0)
    divided = ir.node("Div", [value, root], name=f"{product.name}_divided")
    (quotient,) = divided.outputs
    quotient.name = f"{made.name}_divided"
    quotient.type, quotient.shape = made.type, made.shape
    graph = product.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(product, divided)
    hand_over(made, quotient)
    prune(product)
