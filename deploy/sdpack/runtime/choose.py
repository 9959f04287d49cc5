"""Choice of a runtime: the profile's own if this machine has it, else the CPU."""

from __future__ import annotations

import importlib.util

from sdpack.documents.manifest import Manifest
from sdpack.domain.precision import Runtime
from sdpack.engines import onnxruntime
from sdpack.engines.detect import gpus
from sdpack.errors import MissingPackageError

MODULES = {
    Runtime.TENSORRT_RTX: "tensorrt_rtx",
    Runtime.TENSORRT: "tensorrt",
    Runtime.ONNXRUNTIME_CUDA: "onnxruntime",
    Runtime.ONNXRUNTIME_CPU: "onnxruntime",
}


def chosen_runtime(manifest: Manifest) -> Runtime:
    """Return the profile's runtime if it can run here, else ONNX Runtime on the CPU.

    Raises:
        MissingPackageError: neither is installed.
    """
    wanted = manifest.profile.runtime
    if _has(wanted) and (not wanted.on_gpu or _on_its_gpu(manifest)):
        return wanted
    if not _has(Runtime.ONNXRUNTIME_CPU):
        raise MissingPackageError("onnxruntime", "cpu", "drawing without the profile's device")
    return Runtime.ONNXRUNTIME_CPU


def _has(runtime: Runtime) -> bool:
    if importlib.util.find_spec(MODULES[runtime]) is None:
        return False
    return runtime not in onnxruntime.PROVIDERS or onnxruntime.offers(runtime)


def _on_its_gpu(manifest: Manifest) -> bool:
    """Whether this machine has a GPU that fits the bundle's engines, if it has any."""
    made_for = manifest.profile.sm
    planned = any(engine.plan for part in manifest.parts.values() for engine in part.engines)
    return any(not planned or gpu.sm == made_for for gpu in gpus())
