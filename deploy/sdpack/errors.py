"""What can go wrong, as one tree; the exit code of the command line follows from the class.

    SdpackError                 exit 1: it was tried and failed
    ├── InputError              exit 2: what was given is wrong
    │   ├── ProfileError        a device profile
    │   ├── CatalogError        a catalog
    │   └── PromptError         a prompt, seed or size
    ├── InfeasibleError         exit 2: nothing fits; says the smallest budget that would
    ├── MissingPackageError     an optional package is needed; says how to get it
    ├── SourceError             a checkpoint is missing, damaged or of an unknown class
    ├── ExportError             a part could not be exported, or its export disagrees with it
    ├── SchedulerError          a scheduler that cannot be written as a table
    ├── GraphError              an ONNX file is missing, damaged or not valid
    ├── QuantizationError       a precision variant could not be made
    ├── EngineError             an engine could not be built, loaded or run
    │   └── UnsupportedGraphError        a compiler does not take a graph, however often it is asked
    ├── BrokenPictureError      a picture is not finite, or constant
    ├── StoreError              the artifact store or ledger cannot be read or written
    └── BundleError             a bundle is damaged, incomplete or of another schema

Every message is one line that says what is wrong, where, and what to do about it.
"""

from __future__ import annotations

FAILED = 1
USAGE = 2


class SdpackError(Exception):
    """Anything sdpack refuses or fails to do."""

    exit_code = FAILED


class InputError(SdpackError):
    """What the caller gave is wrong."""

    exit_code = USAGE


class ProfileError(InputError):
    """A device profile cannot be found or understood."""


class CatalogError(InputError):
    """A catalog cannot be found or understood, or its parts do not fit together."""


class PromptError(InputError):
    """A prompt, a seed or a size that cannot be drawn."""


class InfeasibleError(SdpackError):
    """No mix fits the budget.

    Attributes:
        smallest_bytes: the smallest budget with which a mix would fit.
    """

    exit_code = USAGE

    def __init__(self, message: str, smallest_bytes: int) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes


class MissingPackageError(SdpackError):
    """An optional package is needed and absent.

    Args:
        extra: of this package that brings it; "" where the device's maker does.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        how = (
            f"install it with: pip install 'sdpack[{extra}]'"
            if extra
            else "the device's vendor provides it: JetPack on a Jetson, else NVIDIA's TensorRT"
        )
        super().__init__(f"{purpose} needs {package}; {how}")


class SourceError(SdpackError):
    """A checkpoint is missing, damaged, or of a class sdpack does not know."""


class ExportError(SdpackError):
    """A part could not be exported, or the export disagrees with the part."""


class SchedulerError(SdpackError):
    """A scheduler that cannot be written as a table of coefficients."""


class GraphError(SdpackError):
    """An ONNX file is missing, damaged, or not valid."""


class QuantizationError(SdpackError):
    """A precision variant could not be made."""


class EngineError(SdpackError):
    """An engine could not be built, loaded or run."""


class UnsupportedGraphError(EngineError):
    """A graph a compiler does not take, or whose numbers the device cannot hold."""


class BrokenPictureError(SdpackError):
    """A picture with values that are not finite, or all the same."""


class StoreError(SdpackError):
    """The artifact store or the ledger cannot be read or written."""


class BundleError(SdpackError):
    """A bundle is damaged, incomplete, or of a schema this version does not read."""
