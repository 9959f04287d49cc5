"""What a command needs installed, seen to before it starts."""

from __future__ import annotations

from sdpack.domain.precision import Runtime
from sdpack.engines.detect import packages
from sdpack.errors import MissingPackageError


def require(runtime: Runtime) -> None:
    """See that what a build for this runtime uses is installed.

    Raises:
        MissingPackageError: something is not.
    """
    here = {package.module for package in packages() if package.here}
    for package in packages():
        if package.extra == "build" and not package.here:
            raise MissingPackageError(package.name, "build", "building a bundle")
    if "onnxruntime" not in here:
        raise MissingPackageError("onnxruntime", "cpu", "measuring mixes")
    if runtime is Runtime.TENSORRT_RTX and "tensorrt_rtx" not in here:
        raise MissingPackageError("tensorrt_rtx_cu13", "tensorrt", f"building for {runtime}")


def require_charts() -> None:
    """See that what draws charts is installed.

    Raises:
        MissingPackageError: something is not.
    """
    for package in packages():
        if package.extra == "report" and not package.here:
            raise MissingPackageError(package.name, "report", "drawing charts")
