"""Operators whose output type does not follow from their inputs, in 16-bit graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from sdpack.engines.onnxruntime import load
from sdpack.quantization.half import to_half, widened
from sdpack.rewrite.onnx_file import read, write

FLOAT, SIDE = TensorProto.FLOAT, 16
RNG = np.random.default_rng(0)
X = RNG.standard_normal((SIDE, SIDE)).astype(np.float32)
node = helper.make_node
FIXED = {
    "size": np.int64(SIDE),
    "one": np.int64(1),
    "zeros": np.array([0]),
    "ones": np.array([1]),
    "low": np.float32(0),
    "high": np.float32(4000),
    "rate": np.int64(8000),
    "scale": np.ones(SIDE, np.float32),
    "ids": np.arange(SIDE),
}
# Each makes "r", which is added to x; in the first group it is the same on every run.
STEADY = {
    "EyeLike": [node("EyeLike", ["x"], ["r"], dtype=FLOAT)],
    "EyeLike without dtype": [node("EyeLike", ["x"], ["r"])],
    "ConstantOfShape": [
        node("Shape", ["x"], ["s"]),
        node(
            "ConstantOfShape",
            ["s"],
            ["r"],
            value=numpy_helper.from_array(np.array([1.5], np.float32)),
        ),
    ],
    "ConstantOfShape of zeros": [
        node("Shape", ["x"], ["s"]),
        node("ConstantOfShape", ["s"], ["r"]),
    ],
    "HannWindow": [node("HannWindow", ["size"], ["r"])],
    "HammingWindow": [node("HammingWindow", ["size"], ["r"], output_datatype=FLOAT)],
    "BlackmanWindow": [node("BlackmanWindow", ["size"], ["r"])],
    "MelWeightMatrix": [
        node("MelWeightMatrix", ["size", "size", "rate", "low", "high"], ["mel"]),
        node("Slice", ["mel", "zeros", "ones", "zeros"], ["r"]),
    ],
    "Multinomial": [
        node("Multinomial", ["sure"], ["drawn"], sample_size=1),
        node("Cast", ["drawn"], ["r"], to=FLOAT),
    ],
    "CastLike": [node("CastLike", ["ids", "x"], ["r"])],
    "SequenceEmpty": [
        node("SequenceEmpty", [], ["empty"]),
        node("SequenceInsert", ["empty", "x"], ["one x"]),
        node("ConcatFromSequence", ["one x"], ["r"], axis=0),
    ],
    "SequenceConstruct": [
        node("SequenceConstruct", ["x", "x"], ["two"]),
        node("Identity", ["two"], ["same two"]),
        node("SequenceAt", ["same two", "one"], ["r"]),
    ],
    "SplitToSequence": [
        node("SplitToSequence", ["x", "one"], ["rows"]),
        node("ConcatFromSequence", ["rows"], ["r"], axis=0),
    ],
    "Optional": [node("Optional", ["x"], ["maybe"]), node("OptionalGetElement", ["maybe"], ["r"])],
    "LayerNormalization's mean": [
        node("LayerNormalization", ["x", "scale"], ["normal", "mean"]),
        node("Add", ["normal", "mean"], ["r"]),
    ],
    "TfIdfVectorizer": [
        node(
            "TfIdfVectorizer",
            ["ids"],
            ["r"],
            max_gram_length=1,
            max_skip_count=0,
            min_gram_length=1,
            mode="TF",
            ngram_counts=[0],
            ngram_indexes=list(range(SIDE)),
            pool_int64s=list(range(SIDE)),
        )
    ],
    "CumSum": [node("CumSum", ["x", "one"], ["r"])],
}
RANDOM = {
    "RandomNormal": [node("RandomNormal", [], ["r"], shape=[SIDE, SIDE], seed=1.0)],
    "RandomUniform": [node("RandomUniform", [], ["r"], shape=[SIDE, SIDE], dtype=FLOAT)],
    "RandomNormalLike": [node("RandomNormalLike", ["x"], ["r"], dtype=FLOAT)],
    "RandomNormalLike without dtype": [node("RandomNormalLike", ["x"], ["r"])],
    "RandomUniformLike": [node("RandomUniformLike", ["x"], ["r"], dtype=FLOAT)],
    "RandomUniformLike of integers": [node("RandomUniformLike", ["ids"], ["r"], dtype=FLOAT)],
    "Bernoulli": [node("Sigmoid", ["x"], ["p"]), node("Bernoulli", ["p"], ["r"], dtype=FLOAT)],
}


def written(nodes: list[onnx.NodeProto], path: Path, opset: int = 21) -> Path:
    sure = np.where(np.eye(SIDE) > 0, 9, -60000).astype(np.float32)  # class i of row i
    used = {name for made in nodes for name in made.input}
    fixed = {name: value for name, value in {**FIXED, "sure": sure}.items() if name in used}
    graph = helper.make_graph(
        [*nodes, node("Add", ["r", "x"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", FLOAT, [SIDE, SIDE])],
        [helper.make_tensor_value_info("y", FLOAT, [SIDE, SIDE])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in fixed.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def narrowed(path: Path, dtype: ir.DataType) -> Path:
    model = read(path)
    to_half(model, dtype=dtype)
    if dtype is ir.DataType.BFLOAT16:  # which a CPU has no kernels for
        widened(model)
    target = path.with_name("half.onnx")
    write(model, target)
    return target


def ran(path: Path) -> np.ndarray:
    with load(path, threads=1) as session:
        return session.run({"x": X})["y"]


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
@pytest.mark.parametrize("name", STEADY)
def test_what_chooses_its_own_type_computes_as_in_fp32(
    tmp_path: Path, name: str, dtype: ir.DataType
) -> None:
    whole = written(STEADY[name], tmp_path / "whole.onnx")
    # Two roundings to fp16's 11 bits, of numbers below 32; the bf16 graph is widened to fp32.
    off = np.abs(ran(narrowed(whole, dtype)) - ran(whole)).max()
    assert off < 32 * 2 * 2.0**-11


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_can_be_made_in_a_16_bit_graph(
    tmp_path: Path, name: str, dtype: ir.DataType
) -> None:
    drawn = ran(narrowed(written(RANDOM[name], tmp_path / "whole.onnx"), dtype)) - X
    assert 0.1 < drawn.std() < 2
    if "Normal" not in name:
        assert drawn.min() > -0.01
        assert drawn.max() < 1.01


def test_an_operator_that_took_fp16_late_stays_in_fp32_in_older_opsets(tmp_path: Path) -> None:
    """CumSum takes fp16 from opset 14 on."""
    for opset, narrow in ((13, False), (14, True)):
        model = read(written(STEADY["CumSum"], tmp_path / "whole.onnx", opset))
        to_half(model)
        (summed,) = (n for n in model.graph if n.op_type == "CumSum")
        assert (summed.outputs[0].dtype is ir.DataType.FLOAT16) is narrow
