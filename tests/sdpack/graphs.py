"""Small graphs to test with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from sdpack.domain.arrays import Float32Array
from sdpack.export.graph import OPSET
from sdpack.rewrite.onnx_file import MODEL_FILE, write


def _value(name: str, shape: Sequence[int | str]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))


def _model(inputs: list[ir.Value], nodes: list[ir.Node], weights: dict[str, ir.Value]) -> ir.Model:
    graph = ir.Graph(
        inputs,
        [nodes[-1].outputs[0]],
        nodes=nodes,
        initializers=list(weights.values()),
        opset_imports={"": OPSET},
        name="test",
    )
    return ir.Model(graph, ir_version=10)


def _constant(name: str, values: Float32Array) -> ir.Value:
    tensor = ir.tensor(values, name=name)
    return ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(values.shape),
        const_value=tensor,
    )


def linear(weight: Float32Array) -> ir.Model:
    """y (N, outputs) = x (N, inputs) @ weight."""
    x, w = _value("x", ["N", weight.shape[0]]), _constant("w", weight)
    y = _value("y", ["N", weight.shape[1]])
    node = ir.node("MatMul", [x, w], outputs=[y], name="linear")
    return _model([x], [node], {"w": w})


def chain(weights: Sequence[Float32Array]) -> ir.Model:
    """y (N, last outputs) = x (N, inputs) through each weight in turn, Relu between them."""
    x = value = _value("x", ["N", weights[0].shape[0]])
    fixed, nodes = {}, []
    for number, weight in enumerate(weights):
        fixed[f"w{number}"] = w = _constant(f"w{number}", weight)
        made = _value(f"y{number}", ["N", weight.shape[1]])
        nodes.append(ir.node("MatMul", [value, w], outputs=[made], name=f"linear{number}"))
        value = made
        if number < len(weights) - 1:
            value = _value(f"z{number}", ["N", weight.shape[1]])
            nodes.append(ir.node("Relu", [made], outputs=[value], name=f"relu{number}"))
    return _model([x], nodes, fixed)


def gemm(weight: Float32Array, bias: Float32Array) -> ir.Model:
    """y (N, outputs) = x (N, inputs) @ weight.T + bias."""
    x = _value("x", ["N", weight.shape[1]])
    w, b = _constant("w", weight), _constant("b", bias)
    y = _value("y", ["N", weight.shape[0]])
    node = ir.node("Gemm", [x, w, b], {"transB": 1}, outputs=[y], name="gemm")
    return _model([x], [node], {"w": w, "b": b})


def convolution(weight: Float32Array) -> ir.Model:
    """y (N, outputs, H, W) = x (N, inputs, H, W) convolved with weight, same size."""
    outputs, inputs, kernel, _ = weight.shape
    x, w = _value("x", ["N", inputs, "H", "W"]), _constant("w", weight)
    y = _value("y", ["N", outputs, "H", "W"])
    attributes = {"pads": [kernel // 2] * 4}
    node = ir.node("Conv", [x, w], attributes, outputs=[y], name="conv")
    return _model([x], [node], {"w": w})


def upscaling() -> ir.Model:
    """y (1, 4, 16, 16) = x (1, 4, 8, 8), every pixel four times."""
    x, scales = _value("x", [1, 4, 8, 8]), _constant("scales", np.array([1, 1, 2, 2], np.float32))
    y = _value("y", [1, 4, 16, 16])
    node = ir.node("Resize", [x, None, scales], {"mode": "nearest"}, outputs=[y], name="up")
    return _model([x], [node], {"scales": scales})


def saved(model: ir.Model, folder: Path) -> Path:
    """The graph written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    write(model, path)
    return path


def embedding(table: Float32Array) -> ir.Model:
    """y (N, T, width) = table[x (N, T)]."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["N", "T"]))
    w, y = _constant("w", table), _value("y", ["N", "T", table.shape[1]])
    node = ir.node("Gather", [w, x], {"axis": 0}, outputs=[y], name="embedding")
    return _model([x], [node], {"w": w})


def two_readers(weight: Float32Array) -> ir.Model:
    """y and z (N, outputs), both x (N, inputs) @ weight."""
    model = linear(weight)
    (first,) = model.graph
    second = ir.node("MatMul", list(first.inputs), outputs=[_value("z", ["N", weight.shape[1]])])
    second.name = "second"
    model.graph.append(second)
    model.graph.outputs.append(second.outputs[0])
    return model
