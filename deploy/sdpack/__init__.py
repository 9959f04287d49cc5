"""sdpack: measured text-to-image pipelines for devices with a fixed amount of memory.

The names in `__all__` are the Python API; each is imported when it is first asked for, so that
`import sdpack` alone loads nothing. Whatever else is in this package may change in any version.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# ONNX Runtime and the hub's client tell their makers what is run with them, where nobody says no.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

if TYPE_CHECKING:
    from sdpack.api.drawing import Bundle, open_bundle
    from sdpack.api.making import build, quantize, study
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
        UnsupportedGraphError,
    )
    from sdpack.version import __version__

__all__ = [
    "BrokenPictureError",
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
    "UnsupportedGraphError",
    "__version__",
    "build",
    "open_bundle",
    "quantize",
    "study",
]

_MODULES = {
    "sdpack.api.drawing": ("Bundle", "open_bundle"),
    "sdpack.api.making": ("build", "quantize", "study"),
    "sdpack.documents.catalog": ("Catalog",),
    "sdpack.documents.profile": ("Profile",),
    "sdpack.version": ("__version__",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # or else type checkers would take any name for one that is here

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES.get(name, "sdpack.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__]
