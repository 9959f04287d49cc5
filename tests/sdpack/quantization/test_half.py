from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sdpack.engines.onnxruntime import load
from sdpack.quantization.half import beyond_half, to_half, widened
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import convolution, linear, saved, upscaling
from tests.sdpack.quantization.test_observe import wild

RNG = np.random.default_rng(0)


def half(
    model: ir.Model, folder: Path, fp32_nodes: set[str] | frozenset[str] = frozenset()
) -> Path:
    path = saved(model, folder / "whole")
    model = read(path)
    to_half(model, fp32_nodes)
    return saved(model, folder / "half")


def strict(path: Path) -> onnx.ModelProto:
    """The graph at `path`, whose types have been checked."""
    model = onnx.load(path)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def test_inputs_and_outputs_stay_in_fp32(tmp_path: Path) -> None:
    weight = RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)
    path = half(convolution(weight), tmp_path)
    data = path.with_name("model.onnx.data").stat().st_size
    assert data == pytest.approx(weight.nbytes / 2, rel=0.02)
    assert [node.op_type for node in strict(path).graph.node] == ["Cast", "Conv", "Cast"]
    x = RNG.standard_normal((1, 16, 8, 8)).astype(np.float32)
    with load(tmp_path / "whole" / "model.onnx", threads=1) as one, load(path, threads=1) as two:
        wanted, seen = one.run({"x": x})["y"], two.run({"x": x})["y"]
    assert seen.dtype == np.float32
    assert np.abs(seen - wanted).max() < 0.02 * np.abs(wanted).max()


def test_the_scales_of_a_resize_stay_in_fp32(tmp_path: Path) -> None:
    model = strict(half(upscaling(), tmp_path))
    assert [node.op_type for node in model.graph.node] == ["Cast", "Resize", "Cast"]


def test_what_fp16_cannot_hold_is_computed_in_fp32(tmp_path: Path) -> None:
    model = wild([300.0, 300.0, 1 / 300, 1 / 300])
    x = {"x": np.full((2, 4), -2.0, np.float32)}
    peaks = {"linear": 2.0, "mul 0": 600.0, "mul 1": 180_000.0, "mul 2": 600.0, "mul 3": 2.0}
    fp32_nodes = beyond_half(model, peaks)
    assert fp32_nodes == {"mul 1", "mul 2"}
    path = half(model, tmp_path, fp32_nodes)
    made = {node.name: node for node in strict(path).graph.node}
    assert "v0_to_wide" in made
    assert "v2_to_narrow" in made
    with load(path, threads=1) as session:
        assert session.run(x)["v3"] == pytest.approx(-2.0, rel=0.01)


def test_half_of_what_fp16_holds_is_kept_for_other_inputs() -> None:
    model = wild([1.0])
    assert beyond_half(model, {"linear": 1.0, "mul 0": 40_000.0}) == {"mul 0"}
    assert beyond_half(model, {"linear": 1.0, "mul 0": 30_000.0}) == frozenset()


def test_the_angles_of_sines_are_worked_out_in_fp32(tmp_path: Path) -> None:
    """999 times a frequency of 0.9: fp16 is off by a quarter there."""
    model = wild([0.9])
    (value,) = model.graph.outputs
    sine = ir.node("Sin", [value], name="sine")
    sine.outputs[0].name, sine.outputs[0].dtype = "s", ir.DataType.FLOAT
    sine.outputs[0].shape = value.shape
    model.graph.append(sine)
    model.graph.outputs[0] = sine.outputs[0]
    path = half(model, tmp_path)
    strict(path)
    with load(path, threads=1) as session:
        seen = session.run({"x": np.full((1, 4), 999.0, np.float32)})["s"]
    assert seen == pytest.approx(np.sin(999 * 0.9), abs=1e-3)


def test_bf16_is_made_the_same_way(tmp_path: Path) -> None:
    model = read(saved(linear(RNG.standard_normal((64, 48)).astype(np.float32)), tmp_path))
    to_half(model, dtype=ir.DataType.BFLOAT16)
    made = strict(saved(model, tmp_path / "half"))
    (weight,) = made.graph.initializer
    assert weight.data_type == onnx.TensorProto.BFLOAT16


def test_weights_beyond_fp16_become_its_largest(tmp_path: Path) -> None:
    weight = np.full((64, 48), 1e6, np.float32)
    made = onnx.load(half(linear(weight), tmp_path))
    (stored,) = made.graph.initializer
    assert (onnx.numpy_helper.to_array(stored, str(tmp_path / "half")) == 65504).all()


def test_bf16_is_widened_to_the_same_weights(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
    model = linear(weight)
    to_half(model, dtype=ir.DataType.BFLOAT16)
    widened(model)
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    with load(saved(model, tmp_path), threads=1) as session:
        (y,) = session.run({"x": x}).values()
    rounded = weight.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.allclose(y, x @ rounded, rtol=1e-5, atol=1e-4)
    assert not np.allclose(y, x @ weight, rtol=1e-5, atol=1e-4)
