"""How a part's weights and activations are stored, and which devices can run that."""

from __future__ import annotations

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


@dataclass(frozen=True)
class _Format:
    bits: int
    since: ComputeCapability  # the first NVIDIA GPUs whose compilers take it
    on_cpu: bool  # whether ONNX Runtime's CPU provider keeps it small


# TensorRT's support matrix, and what TensorRT-RTX 1.7 built for SM75 to SM120: INT4 weights
# from SM80, FP8 from SM89. ONNX Runtime's CPU provider casts fp16 to fp32 before it computes, so
# that fp16 takes more memory there, not less.
_FORMATS = {
    Precision.FP32: _Format(32, (7, 5), on_cpu=True),
    Precision.FP16: _Format(16, (7, 5), on_cpu=False),
    Precision.BF16: _Format(16, (8, 0), on_cpu=False),
    Precision.INT8: _Format(8, (7, 5), on_cpu=True),
    Precision.FP8: _Format(8, (8, 9), on_cpu=False),
    Precision.W8: _Format(8, (7, 5), on_cpu=True),
    Precision.W4: _Format(4, (8, 0), on_cpu=True),
}

# Those `build` makes.
OFFERED = (Precision.FP32, Precision.FP16, Precision.INT8, Precision.W8, Precision.W4)


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
    if not runtime.on_gpu or compute_capability is None:
        return tuple(p for p in OFFERED if _FORMATS[p].on_cpu)
    return tuple(p for p in OFFERED if compute_capability >= _FORMATS[p].since)


def kept_small(runtime: Runtime, precision: Precision) -> bool:
    """Whether a runtime holds weights as they are stored, on some device."""
    return runtime.on_gpu or precision is Precision.MIXED or _FORMATS[precision].on_cpu


def computed_in(runtime: Runtime, precision: Precision) -> Precision:
    """The type a variant's arithmetic is done in around its stored weights.

    On GPUs that is fp16: in fp32 attention is not fused and activations grow many times over.
    """
    if precision in (Precision.FP32, Precision.FP16, Precision.BF16):
        return precision
    return Precision.FP16 if runtime.on_gpu else Precision.FP32
