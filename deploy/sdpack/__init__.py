"""sdpack: measured text-to-image pipelines for devices with a fixed amount of memory.

The names in `__all__` are the Python API. Each is imported on first use, so `import sdpack` alone
loads nothing else. Everything outside `__all__` may change in any version.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# ONNX Runtime and huggingface_hub send telemetry unless these are set.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

if TYPE_CHECKING:
    from sdpack.api.drawing import Bundle, open_bundle
    from sdpack.api.making import BuildOptions, build, quantize, study
    from sdpack.documents.catalog import Catalog
    from sdpack.documents.profile import Profile
    from sdpack.errors import (
        BrokenPictureError,
        BundleError,
        CatalogError,
        EngineError,
        ExportError,
        GraphError,
        InfeasibleError,
        InputError,
        MissingPackageError,
        ProfileError,
        PromptError,
        QuantizationError,
        SchedulerError,
        SdpackError,
        SourceError,
        StoreError,
        TooSlowError,
        UnsupportedGraphError,
        WorkerError,
    )
    from sdpack.version import __version__

__all__ = [
    "BrokenPictureError",
    "BuildOptions",
    "Bundle",
    "BundleError",
    "Catalog",
    "CatalogError",
    "EngineError",
    "ExportError",
    "GraphError",
    "InfeasibleError",
    "InputError",
    "MissingPackageError",
    "Profile",
    "ProfileError",
    "PromptError",
    "QuantizationError",
    "SchedulerError",
    "SdpackError",
    "SourceError",
    "StoreError",
    "TooSlowError",
    "UnsupportedGraphError",
    "WorkerError",
    "__version__",
    "build",
    "open_bundle",
    "quantize",
    "study",
]

_MODULES = {
    "sdpack.api.drawing": ("Bundle", "open_bundle"),
    "sdpack.api.making": ("BuildOptions", "build", "quantize", "study"),
    "sdpack.documents.catalog": ("Catalog",),
    "sdpack.documents.profile": ("Profile",),
    "sdpack.version": ("__version__",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a visible __getattr__ would make type checkers accept any name

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES.get(name, "sdpack.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__]
