from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sdpack.engines.onnxruntime import load
from sdpack.quantize.weights import (
    BLOCK_SIZE,
    quantize_blocks,
    quantize_channels,
    replace_weights,
)

from tests.sdpack.graphs import convolution, gemm, linear, saved

matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3).map(lambda n: n * 8), st.integers(1, 9)),
    elements=st.floats(-100, 100, width=32),
)


def undone(integers: np.ndarray, scales: np.ndarray, axis: int, block: int) -> np.ndarray:
    """What DequantizeLinear computes."""
    if block:
        return integers.astype(np.float32) * scales.repeat(block, axis)
    shape = [-1 if i == axis else 1 for i in range(integers.ndim)]
    return integers.astype(np.float32) * scales.reshape(shape)


@given(matrices, st.sampled_from([0, 1]), st.sampled_from([4, 8]))
def test_channels_are_off_by_half_a_step_at_most(w: np.ndarray, axis: int, bits: int) -> None:
    q = quantize_channels(w, axis, bits)
    shape = [-1 if i == axis else 1 for i in range(2)]
    error = np.abs(undone(q.integers, q.scales, axis, 0) - w)
    assert (error <= 0.5001 * q.scales.reshape(shape) + 1e-6).all()


@given(matrices)
def test_blocks_are_off_by_half_a_step_of_their_own(w: np.ndarray) -> None:
    q = quantize_blocks(w, 0, 8)
    assert q.scales.shape == (w.shape[0] // 8, w.shape[1])
    error = np.abs(undone(q.integers, q.scales, 0, 8) - w)
    assert (error <= 0.5001 * q.scales.repeat(8, 0) + 1e-6).all()


def test_an_outlier_costs_only_its_block() -> None:
    w = np.ones((64, 1), np.float32)
    w[3] = 1000
    q = quantize_blocks(w, 0, BLOCK_SIZE)
    seen = undone(q.integers, q.scales, 0, BLOCK_SIZE)
    assert np.array_equal(seen[BLOCK_SIZE:], w[BLOCK_SIZE:])
    assert seen[0] == 0


RNG = np.random.default_rng(0)
GRAPHS = {
    "MatMul": lambda: linear(RNG.standard_normal((64, 48)).astype(np.float32)),
    "Gemm": lambda: gemm(
        RNG.standard_normal((48, 64)).astype(np.float32), RNG.random(48, np.float32)
    ),
    "Conv": lambda: convolution(RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)),
}


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.01), (4, 0.15)])
def test_onnxruntime_runs_the_quantized_graph(
    tmp_path: Path, kind: str, bits: int, allowed: float
) -> None:
    model = GRAPHS[kind]()
    x = RNG.standard_normal((2, 16, 8, 8) if kind == "Conv" else (5, 64)).astype(np.float32)
    outputs = []
    sizes = []
    for name in ("whole", "narrow"):
        path = saved(model, tmp_path / name)
        sizes.append(path.with_name("model.onnx.data").stat().st_size)
        with load(path, threads=1) as session:
            outputs.append(session.run({"x": x})["y"])
        if name == "whole":
            assert replace_weights(model, bits) == 1
    wanted, seen = outputs
    assert np.linalg.norm(seen - wanted) < allowed * np.linalg.norm(wanted)
    assert sizes[1] < sizes[0] / 3


def test_four_bits_only_where_a_block_divides_the_sum() -> None:
    for inputs, dtype in ((64, ir.DataType.INT4), (63, ir.DataType.INT8)):
        model = linear(RNG.standard_normal((inputs, 48)).astype(np.float32))
        replace_weights(model, 4)
        assert model.graph.initializers["w_integers"].dtype == dtype
        assert "w" not in model.graph.initializers


def test_small_weights_stay_as_they_are() -> None:
    model = linear(RNG.standard_normal((8, 8)).astype(np.float32))
    assert replace_weights(model, 8) == 0
    assert [node.op_type for node in model.graph] == ["MatMul"]


def test_a_channel_of_zeros_stays_zero() -> None:
    w = np.zeros((4, 3), np.float32)
    q = quantize_channels(w, 0)
    assert np.isfinite(q.scales).all()
    assert not undone(q.integers, q.scales, 0, 0).any()
