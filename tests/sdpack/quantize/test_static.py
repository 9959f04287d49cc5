from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.engines.onnxruntime import load
from sdpack.errors import QuantizationError
from sdpack.precision import Precision
from sdpack.quantize.half import to_half
from sdpack.quantize.ranges import (
    BINS,
    Extent,
    best_threshold,
    histogram,
    measure_extent,
    measure_ranges,
)
from sdpack.quantize.static import quantize_static
from sdpack.quantize.variant import make_variant

from tests.sdpack.graphs import convolution, linear, saved, upscaling

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((64, 48)).astype(np.float32)


def batches(count: int = 3) -> list[dict[str, np.ndarray]]:
    return [{"x": RNG.standard_normal((8, 64)).astype(np.float32)} for _ in range(count)]


def ranges_of(path: Path, seen: list[dict[str, np.ndarray]]) -> dict[str, float]:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return measure_ranges(path, seen, scratch, threads=1)


def test_ranges_are_by_node_and_within_what_was_seen(tmp_path: Path) -> None:
    seen = batches()
    ranges = ranges_of(saved(linear(WEIGHT), tmp_path), seen)
    assert list(ranges) == ["linear"]
    largest = max(np.abs(batch["x"]).max() for batch in seen)
    assert 0.5 * largest < ranges["linear"] <= largest * 1.0001


@pytest.mark.parametrize("computed_in", [Precision.FP32, Precision.FP16])
def test_int8_runs_close_to_the_original(tmp_path: Path, computed_in: Precision) -> None:
    path = saved(linear(WEIGHT), tmp_path / "whole")
    seen = batches()
    variant = make_variant(path, Precision.INT8, computed_in, ranges_of(path, seen))
    ops = [node.op_type for node in variant.graph]
    assert ops.count("QuantizeLinear") == 1
    assert ops.count("DequantizeLinear") == 2
    narrow = saved(variant, tmp_path / "narrow")
    with load(path, threads=1) as session:
        wanted = session.run(seen[0])["y"]
    with load(narrow, threads=1) as session:
        got = session.run(seen[0])["y"]
    assert np.linalg.norm(got - wanted) < 0.03 * np.linalg.norm(wanted)
    assert not np.array_equal(got, wanted)


def test_nodes_that_share_an_input_share_its_rounding(tmp_path: Path) -> None:
    model = linear(WEIGHT)
    (first,) = model.graph
    weight = first.inputs[1]
    second = ir.node("MatMul", [first.inputs[0], weight], name="second")
    second.outputs[0].name = "z"
    second.outputs[0].type = first.outputs[0].type
    model.graph.append(second)
    model.graph.outputs.append(second.outputs[0])
    assert quantize_static(model, {"linear": 1.0, "second": 4.0}) == 2
    assert [n.op_type for n in model.graph].count("QuantizeLinear") == 1
    scale = model.graph.initializers["x_scale"].const_value
    assert scale is not None
    assert scale.numpy() == pytest.approx(4.0 / 127)


def test_a_node_to_keep_is_kept(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    for precision in (Precision.INT8, Precision.W8, Precision.W4):
        variant = make_variant(path, precision, Precision.FP32, {}, keep={"linear"})
        assert [node.op_type for node in variant.graph] == ["MatMul"]


def test_a_node_without_a_range_is_named() -> None:
    with pytest.raises(QuantizationError, match="no range was measured for linear"):
        quantize_static(linear(WEIGHT), {})


def test_int8_without_ranges_and_unmade_precisions_are_refused(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    with pytest.raises(QuantizationError, match="calibrate first"):
        make_variant(path, Precision.INT8, Precision.FP32)
    with pytest.raises(QuantizationError, match="fp8 is not made"):
        make_variant(path, Precision.FP8, Precision.FP16)


def test_inputs_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    with pytest.raises(QuantizationError, match="not finite"):
        ranges_of(path, [{"x": np.full((1, 64), np.nan, np.float32)}])
    with pytest.raises(QuantizationError, match="no calibration inputs"):
        ranges_of(path, [])


def test_fp16_keeps_its_inputs_and_outputs_in_fp32(tmp_path: Path) -> None:
    weight = RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)
    path = saved(convolution(weight), tmp_path / "whole")
    half = saved(make_variant(path, Precision.FP16, Precision.FP16), tmp_path / "half")
    data = half.with_name("model.onnx.data").stat().st_size
    assert data == pytest.approx(weight.nbytes / 2, rel=0.02)
    x = RNG.standard_normal((1, 16, 8, 8)).astype(np.float32)
    with load(path, threads=1) as one, load(half, threads=1) as two:
        wanted, seen = one.run({"x": x})["y"], two.run({"x": x})["y"]
    assert seen.dtype == np.float32
    assert np.abs(seen - wanted).max() < 0.02 * np.abs(wanted).max()


def test_the_extent_is_that_of_values_between_nodes_too(tmp_path: Path) -> None:
    """Up by 300 twice and down again: nothing large goes in or comes out."""
    path = saved(linear(np.eye(4, dtype=np.float32)), tmp_path)
    model = ir.load(path)
    value = model.graph.outputs[0]
    for number, factor in enumerate([300.0, 300.0, 1 / 300, 1 / 300]):
        scalar = ir.Value(name=f"c{number}", const_value=ir.tensor(np.float32(factor)))
        model.graph.register_initializer(scalar)
        node = ir.node("Mul", [value, scalar], name=f"mul {number}")
        value, node.outputs[0].name = node.outputs[0], f"v{number}"
        value.dtype, value.shape = ir.DataType.FLOAT, model.graph.outputs[0].shape
        model.graph.append(node)
    model.graph.outputs[0] = value
    path = saved(model, tmp_path / "wild")
    (tmp_path / "scratch").mkdir()
    x = {"x": np.full((2, 4), -2.0, np.float32)}
    x["x"][0, 0] = np.finfo(np.float32).min  # as a mask has it
    extent = measure_extent(path, [x], tmp_path / "scratch", threads=1)
    assert extent == Extent(pytest.approx(180_000.0), "mul 1")


def test_fp16_graphs_say_the_types_they_have(tmp_path: Path) -> None:
    """A Resize keeps its scales in fp32, which ONNX Runtime's converter does not tell."""
    half = saved(to_half(saved(upscaling(), tmp_path / "whole")), tmp_path / "half")
    model = onnx.load(half)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Resize", "Cast"]


def expected_error(values: np.ndarray, threshold: float) -> float:
    """Mean squared error of int8 rounding after clipping, computed the long way."""
    step = threshold / 127
    rounded = np.clip(np.rint(values / step), -127, 127) * step
    return float(((rounded - values) ** 2).mean())


@given(st.integers(0, 2**32 - 1), st.floats(1, 50))
def test_the_threshold_is_about_the_best_there_is(seed: int, outlier: float) -> None:
    values = np.random.default_rng(seed).standard_normal(20_000)
    values[0] = 4 * outlier
    largest = float(np.abs(values).max())
    chosen = best_threshold(histogram(values, largest), largest)
    tried = largest * np.arange(1, 129) / 128
    best = min(expected_error(values, t) for t in tried)
    assert expected_error(values, chosen) <= 1.1 * best + 1e-12


def test_a_tensor_of_zeros_has_a_harmless_range() -> None:
    assert best_threshold(np.zeros(BINS), 0.0) == 1.0
