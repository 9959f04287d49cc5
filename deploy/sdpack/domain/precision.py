"""How a part's weights and activations are stored, and which devices can run that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Runtime(StrEnum):
    """What runs an engine."""

    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_CPU = "onnxruntime-cpu"

    @property
    def on_gpu(self) -> bool:
        return self is not Runtime.ONNXRUNTIME_CPU


class Precision(StrEnum):
    """`int8` and `fp8` hold weights and activations, `w8` and `w4` only weights, so narrow.

    In `mixed` each layer has a precision of its own.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    FP8 = "fp8"
    W8 = "w8"
    W4 = "w4"
    MIXED = "mixed"


ComputeCapability = tuple[int, int]


TENSORRTS = frozenset({Runtime.TENSORRT_RTX, Runtime.TENSORRT})
ON_GPUS = TENSORRTS | {Runtime.ONNXRUNTIME_CUDA}
EVERYWHERE = frozenset(Runtime)


@dataclass(frozen=True)
class _Format:
    bits: int
    since: ComputeCapability  # the first NVIDIA GPUs whose compilers take it
    small_on: frozenset[Runtime]  # that hold weights so while they run


# TensorRT's support matrix, and what TensorRT-RTX 1.7 built for SM75 to SM120: INT4 weights
# from SM80, FP8 from SM89. ONNX Runtime's CPU provider casts fp16 to fp32 before it computes, so
# that fp16 takes more memory there, not less; none of its providers computes with fp8.
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
    """Bits of one stored weight, scales not counted; not of `mixed`."""
    return _FORMATS[precision].bits


def runnable(
    runtime: Runtime, compute_capability: ComputeCapability | None
) -> tuple[Precision, ...]:
    """Precisions a device can run, widest first.

    Args:
        compute_capability: (major, minor) of an NVIDIA GPU; None on a CPU.
    """
    every = (p for p in Precision if p is not Precision.MIXED)
    return tuple(p for p in every if why_not(runtime, compute_capability, p) is None)


def usual(runtime: Runtime, precisions: Sequence[Precision]) -> tuple[Precision, ...]:
    """Those of a device's precisions worth trying where nobody asked for any.

    On a GPU fp16, with fp32 where its range ends, is as small as bf16 and nearer, and as good as
    fp32 in half the bytes.
    """
    wide = {Precision.FP32, Precision.BF16} if runtime.on_gpu else set()
    return tuple(p for p in precisions if p not in wide)


def why_not(
    runtime: Runtime, compute_capability: ComputeCapability | None, precision: Precision
) -> str | None:
    """What keeps a device from running a precision, and keeping it small; None: nothing does."""
    if precision is Precision.MIXED:
        return "builds make mixed from w8 and w4"
    if not kept_small(runtime, precision):
        return f"{runtime} would unpack {precision} in memory"
    since = _FORMATS[precision].since
    if runtime.on_gpu and compute_capability is not None and compute_capability < since:
        return f"{precision} needs compute capability {since[0]}.{since[1]}"
    return None


def kept_small(runtime: Runtime, precision: Precision) -> bool:
    """Whether a runtime holds weights as they are stored, on some device."""
    return precision is Precision.MIXED or runtime in _FORMATS[precision].small_on


def computed_in(runtime: Runtime, precision: Precision) -> Precision:
    """The type a variant's arithmetic is done in around its stored weights.

    On GPUs that is fp16: in fp32 attention is not fused, and activations are twice as large.
    """
    if precision in (Precision.FP32, Precision.FP16, Precision.BF16):
        return precision
    return Precision.FP16 if runtime.on_gpu else Precision.FP32
