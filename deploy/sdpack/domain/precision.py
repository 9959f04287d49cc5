"""Number formats of a part's weights and activations, and the devices that can run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Runtime(StrEnum):
    """The library that runs an engine."""

    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_CPU = "onnxruntime-cpu"

    @property
    def on_gpu(self) -> bool:
        return self is not Runtime.ONNXRUNTIME_CPU


class Precision(StrEnum):
    """Number format of a part.

    `int8` and `fp8` quantize weights and activations, `w8` and `w4` only weights. In `mixed`, each
    layer has its own precision.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    W8 = "w8"
    W4 = "w4"
    MIXED = "mixed"


UNQUANTIZED = "kept"  # in place of a scheme: the layer stays in the type its graph computes in
ComputeCapability = tuple[int, int]


TENSORRTS = frozenset({Runtime.TENSORRT_RTX, Runtime.TENSORRT})
ON_GPUS = TENSORRTS | {Runtime.ONNXRUNTIME_CUDA}
EVERYWHERE = frozenset(Runtime)


@dataclass(frozen=True)
class _Format:
    bits: int
    since: ComputeCapability  # lowest compute capability whose compilers support it
    small_on: frozenset[Runtime]  # runtimes that keep weights in this format while they run


# From TensorRT's support matrix, and from builds with TensorRT-RTX 1.7 for SM75 to SM120: INT4
# weights from SM80, FP8 from SM89. ONNX Runtime's CPU provider casts fp16 to fp32 before it
# computes, so fp16 needs more memory there, not less. None of its providers computes in fp8.
_FORMATS = {
    Precision.FP32: _Format(32, (7, 5), EVERYWHERE),
    Precision.FP16: _Format(16, (7, 5), ON_GPUS),
    Precision.BF16: _Format(16, (8, 0), ON_GPUS),
    Precision.INT8: _Format(8, (7, 5), EVERYWHERE),
    Precision.FP8: _Format(8, (8, 9), TENSORRTS),
    Precision.W8: _Format(8, (7, 5), EVERYWHERE),
    Precision.W4: _Format(4, (8, 0), EVERYWHERE),
}


def weight_bits(precision: Precision) -> int:
    """Return the bits of one stored weight, without scales; undefined for `mixed`."""
    return _FORMATS[precision].bits


def runnable(
    runtime: Runtime, compute_capability: ComputeCapability | None
) -> tuple[Precision, ...]:
    """Return the precisions a device can run, widest first.

    Args:
        compute_capability: (major, minor) of an NVIDIA GPU; None on a CPU.
    """
    every = (p for p in Precision if p is not Precision.MIXED)
    return tuple(p for p in every if why_not(runtime, compute_capability, p) is None)


def usual(runtime: Runtime, precisions: Sequence[Precision]) -> tuple[Precision, ...]:
    """Return the precisions worth trying by default.

    On a GPU, fp16 (with fp32 for layers that overflow) is as small as bf16 and more accurate, and
    as good as fp32 in half the bytes.
    """
    wide = {Precision.FP32, Precision.BF16} if runtime.on_gpu else set()
    return tuple(p for p in precisions if p not in wide)


def why_not(
    runtime: Runtime, compute_capability: ComputeCapability | None, precision: Precision
) -> str | None:
    """Return why a device cannot run a precision at its stored size, or None if it can."""
    if precision is Precision.MIXED:
        return "builds make mixed from w8 and w4"
    if not kept_small(runtime, precision):
        return f"{runtime} would unpack {precision} in memory"
    since = _FORMATS[precision].since
    if runtime.on_gpu and compute_capability is not None and compute_capability < since:
        return f"{precision} needs compute capability {since[0]}.{since[1]}"
    return None


def kept_small(runtime: Runtime, precision: Precision) -> bool:
    """Whether a runtime keeps weights in their stored format, on some device."""
    return precision is Precision.MIXED or runtime in _FORMATS[precision].small_on


def computed_in(runtime: Runtime, precision: Precision) -> Precision:
    """Return the compute type of a variant, given the precision of its stored weights.

    For quantized weights on GPUs this is fp16: in fp32, attention is not fused and activations are
    twice as large.
    """
    if precision in (Precision.FP32, Precision.FP16, Precision.BF16):
        return precision
    return Precision.FP16 if runtime.on_gpu else Precision.FP32
