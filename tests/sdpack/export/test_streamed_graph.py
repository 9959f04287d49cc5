"""Weights that are read when a graph is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from safetensors.torch import save_file
from sdpack.export.streamed import StoredWeight
from sdpack.export.streamed_graph import supply, withhold
from sdpack.rewrite.onnx_file import read, write

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def model(path: Path) -> tuple[ir.Model, dict[str, StoredWeight], torch.Tensor]:
    """x @ transpose(w) + x @ transpose(w), and a weight that nothing uses."""
    weight = torch.randn(3, 4)
    save_file({"stored": weight, "unused": weight.clone()}, path)
    stored = {
        name: StoredWeight(path, key, (3, 4))
        for name, key in (("w", "stored"), ("spare", "unused"))
    }
    x = ir.Value(name="x", type=FLOAT, shape=ir.Shape([2, 4]))
    values = [ir.Value(name=name, type=FLOAT, shape=ir.Shape([3, 4])) for name in stored]
    for value in values:
        value.const_value = ir.Tensor(np.zeros((3, 4), np.float32), name=value.name)
    turned = [ir.node("Transpose", [values[0]], {"perm": [1, 0]}, name=f"t{n}") for n in range(2)]
    for node in turned:
        node.outputs[0].shape, node.outputs[0].type = ir.Shape([4, 3]), FLOAT
    products = [ir.node("MatMul", [x, node.outputs[0]]) for node in turned]
    total = ir.node("Add", [product.outputs[0] for product in products])
    total.outputs[0].shape, total.outputs[0].type = ir.Shape([2, 3]), FLOAT
    nodes = [*turned, *products, total]
    graph = ir.Graph(
        [x], total.outputs, nodes=nodes, initializers=values, opset_imports={"": 21}, name="g"
    )
    return ir.Model(graph, ir_version=10), stored, weight


def test_nothing_is_known_of_weights_until_they_are_supplied(tmp_path: Path) -> None:
    made, stored, _ = model(tmp_path / "weights.safetensors")
    withhold(made, stored)
    assert all(value.const_value is None for value in made.graph.initializers.values())


def test_a_transposed_weight_is_written_once_in_the_order_it_is_used(tmp_path: Path) -> None:
    made, stored, weight = model(tmp_path / "weights.safetensors")
    withhold(made, stored)
    supply(made, stored)
    write(made, tmp_path / "model.onnx")
    graph = read(tmp_path / "model.onnx").graph
    assert [node.op_type for node in graph] == ["MatMul", "MatMul", "Add"]
    (value,) = graph.initializers.values()
    assert value.const_value is not None
    assert np.array_equal(value.const_value.numpy(), weight.numpy().T)
