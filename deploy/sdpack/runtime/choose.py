"""Which runtime draws here: the profile's own if this machine has it, else the CPU."""

from __future__ import annotations

import importlib.util

from sdpack.bundle import Manifest
from sdpack.detect import gpus
from sdpack.errors import MissingPackageError
from sdpack.precision import Runtime

MODULES = {
    Runtime.TENSORRT_RTX: "tensorrt_rtx",
    Runtime.TENSORRT: "tensorrt",
    Runtime.ONNXRUNTIME_CUDA: "onnxruntime",
    Runtime.ONNXRUNTIME_CPU: "onnxruntime",
}


def chosen_runtime(manifest: Manifest) -> Runtime:
    """The profile's runtime where it can run, else ONNX Runtime on the CPU.

    Raises:
        MissingPackageError: neither is installed.
    """
    wanted = manifest.profile.runtime
    if _has(wanted) and (not wanted.on_gpu or gpus()):
        return wanted
    if not _has(Runtime.ONNXRUNTIME_CPU):
        raise MissingPackageError("onnxruntime", "cpu", "drawing without the profile's device")
    return Runtime.ONNXRUNTIME_CPU


def _has(runtime: Runtime) -> bool:
    return importlib.util.find_spec(MODULES[runtime]) is not None
