"""Where a build draws the images that it compares.

`auto` draws on an NVIDIA GPU if this machine has one that ONNX Runtime can use, and on the CPU
otherwise. Mixes for a CPU are always drawn on the CPU, whose kernels they ship with.
"""

from __future__ import annotations

from enum import StrEnum

from sdpack.domain.precision import Runtime
from sdpack.engines.detect import gpus
from sdpack.engines.onnxruntime import offers
from sdpack.errors import InputError, MissingPackageError


class DrawOn(StrEnum):
    """Where images are to be drawn."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def drawing_runtime(draw_on: DrawOn, profile_runtime: Runtime) -> Runtime:
    """The runtime that draws: ONNX Runtime on the CPU or on an NVIDIA GPU.

    Args:
        profile_runtime: the runtime of the device that the images are drawn for.

    Raises:
        InputError: a GPU is to draw, but there is none, or the device is a CPU.
        MissingPackageError: a GPU is to draw, but ONNX Runtime here cannot use it.
    """
    if draw_on is DrawOn.CPU or (draw_on is DrawOn.AUTO and not _can_draw_on_gpu(profile_runtime)):
        return Runtime.ONNXRUNTIME_CPU
    if not profile_runtime.on_gpu:
        raise InputError(
            f"--draw-on {draw_on}: the profile's runtime is {profile_runtime}, which only a CPU "
            "runs; use --draw-on cpu"
        )
    if not gpus():
        raise InputError(
            f"--draw-on {draw_on}: nvidia-smi lists no GPU on this machine; use --draw-on cpu"
        )
    if not offers(Runtime.ONNXRUNTIME_CUDA):
        raise MissingPackageError("onnxruntime-gpu", "gpu", "drawing on a GPU")
    return Runtime.ONNXRUNTIME_CUDA


def _can_draw_on_gpu(profile_runtime: Runtime) -> bool:
    return profile_runtime.on_gpu and bool(gpus()) and offers(Runtime.ONNXRUNTIME_CUDA)


def runs_shipped_kernels(drawing: Runtime, profile_runtime: Runtime) -> bool:
    """Whether images are drawn by the kernels that ship; otherwise in floating point.

    In floating point, quantized nodes round explicitly, and 16-bit graphs compute in fp32.
    """
    return drawing is profile_runtime


def drawing_words(drawing: Runtime, profile_runtime: Runtime) -> str:
    """Where and how images are drawn, for the evidence: scores with other words are never mixed."""
    where = "ONNX Runtime CPU"
    if drawing.on_gpu:
        where = f"ONNX Runtime CUDA on {next(iter(gpu.name for gpu in gpus()), 'a GPU')}"
    exact = runs_shipped_kernels(drawing, profile_runtime)
    return where if exact else f"{where} in floating point"
