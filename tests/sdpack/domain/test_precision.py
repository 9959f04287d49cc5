from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir import DataType
from sdpack.domain.precision import (
    Precision,
    Runtime,
    computed_in,
    kept_small,
    runnable,
    usual,
    weight_bits,
    why_not,
)

CAPABILITIES = st.sampled_from([(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)])
RUNTIMES = st.sampled_from(list(Runtime))


@given(RUNTIMES, CAPABILITIES, st.sampled_from(list(Precision)))
def test_a_precision_is_runnable_exactly_if_there_is_no_reason_against_it(
    runtime: Runtime, capability: tuple[int, int], precision: Precision
) -> None:
    reason = why_not(runtime, capability, precision)
    assert (precision in runnable(runtime, capability)) == (reason is None)


@given(RUNTIMES, CAPABILITIES, CAPABILITIES)
def test_a_later_gpu_runs_all_that_an_earlier_one_does(
    runtime: Runtime, one: tuple[int, int], other: tuple[int, int]
) -> None:
    earlier, later = sorted([one, other])
    assert set(runnable(runtime, earlier)) <= set(runnable(runtime, later))


@given(RUNTIMES, CAPABILITIES)
def test_precisions_come_widest_first_and_without_mixed(
    runtime: Runtime, capability: tuple[int, int]
) -> None:
    found = runnable(runtime, capability)
    assert [weight_bits(p) for p in found] == sorted(map(weight_bits, found), reverse=True)
    assert Precision.MIXED not in found
    assert all(kept_small(runtime, p) for p in found)


@pytest.mark.parametrize(
    ("precision", "stored"),
    [
        (Precision.FP32, DataType.FLOAT),
        (Precision.FP16, DataType.FLOAT16),
        (Precision.BF16, DataType.BFLOAT16),
        (Precision.INT8, DataType.INT8),
        (Precision.FP8, DataType.FLOAT8E4M3FN),
        (Precision.W8, DataType.INT8),
        (Precision.W4, DataType.INT4),
    ],
)
def test_bits_are_those_of_the_type_in_the_graph(precision: Precision, stored: DataType) -> None:
    assert weight_bits(precision) == stored.bitwidth


@given(RUNTIMES, CAPABILITIES)
def test_gpus_skip_fp32_and_bf16_by_default_and_cpus_nothing(
    runtime: Runtime, capability: tuple[int, int]
) -> None:
    found = runnable(runtime, capability)
    wide = {Precision.FP32, Precision.BF16}
    assert usual(runtime, found) == (
        tuple(p for p in found if p not in wide) if runtime.on_gpu else found
    )


@pytest.mark.parametrize(
    ("runtime", "capability", "precision", "reason"),
    [
        (Runtime.TENSORRT_RTX, (7, 5), Precision.W4, "w4 needs compute capability 8.0"),
        (Runtime.TENSORRT, (8, 6), Precision.FP8, "fp8 needs compute capability 8.9"),
        (Runtime.ONNXRUNTIME_CPU, None, Precision.FP16, "onnxruntime-cpu would unpack fp16"),
        (Runtime.ONNXRUNTIME_CUDA, (8, 9), Precision.FP8, "onnxruntime-cuda would unpack fp8"),
        (Runtime.TENSORRT, (8, 9), Precision.MIXED, "builds make mixed from w8 and w4"),
    ],
)
def test_the_reason_names_what_is_missing(
    runtime: Runtime, capability: tuple[int, int] | None, precision: Precision, reason: str
) -> None:
    assert (why_not(runtime, capability, precision) or "").startswith(reason)


def test_narrow_weights_are_computed_in_fp16_on_gpus_and_fp32_on_a_cpu() -> None:
    for precision in (Precision.INT8, Precision.FP8, Precision.W8, Precision.W4, Precision.MIXED):
        assert computed_in(Runtime.TENSORRT_RTX, precision) is Precision.FP16
        assert computed_in(Runtime.ONNXRUNTIME_CPU, precision) is Precision.FP32
    for precision in (Precision.FP32, Precision.FP16, Precision.BF16):
        assert {computed_in(runtime, precision) for runtime in Runtime} == {precision}
