"""All errors, as one tree; the class determines the exit code of the command line.

    SdpackError                 exit 1: the operation failed
    ├── InputError              exit 2: the input is wrong
    │   ├── ProfileError        a device profile
    │   ├── CatalogError        a catalog
    │   └── PromptError         a prompt, seed or size
    ├── InfeasibleError         exit 2: nothing fits; reports the smallest budget that would
    ├── TooSlowError            exit 2: no mix is fast enough; reports the fastest
    ├── MissingPackageError     an optional package is missing; says how to install it
    ├── SourceError             a checkpoint is missing, damaged or of an unknown class
    ├── ExportError             a part could not be exported, or its export disagrees with it
    ├── SchedulerError          a scheduler cannot be written as a table
    ├── GraphError              an ONNX file is missing, damaged or not valid
    ├── QuantizationError       a precision variant could not be made
    ├── EngineError             an engine could not be built, loaded or run
    │   └── UnsupportedGraphError        a compiler rejects a graph, and always will
    ├── BrokenPictureError      an image has non-finite values or is constant
    ├── StoreError              the artifact store or ledger cannot be read or written
    ├── WorkerError             worker processes cannot be started, or die
    └── BundleError             a bundle is damaged, incomplete or of another schema

Every message is one line: it names the problem, its place and the remedy.
"""

from __future__ import annotations

FAILED = 1
USAGE = 2


class SdpackError(Exception):
    """Base class of everything sdpack raises on purpose."""

    exit_code = FAILED


class InputError(SdpackError):
    """The caller's input is wrong."""

    exit_code = USAGE


class ProfileError(InputError):
    """A device profile cannot be found or understood."""


class CatalogError(InputError):
    """A catalog cannot be found or understood, or its parts do not fit together."""


class PromptError(InputError):
    """A prompt, a seed or a size cannot be drawn."""


class InfeasibleError(SdpackError):
    """No mix fits the budget.

    Attributes:
        smallest_bytes: the smallest budget with which a mix would fit.
    """

    exit_code = USAGE

    def __init__(self, message: str, smallest_bytes: int) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes


class TooSlowError(SdpackError):
    """No mix that fits draws an image within the limit.

    Attributes:
        fastest_s: seconds per image of the fastest mix.
    """

    exit_code = USAGE

    def __init__(self, message: str, fastest_s: float) -> None:
        super().__init__(message)
        self.fastest_s = fastest_s


def install_command(extra: str) -> str:
    """Return the command that installs an extra; the zoo that `build` needs is not on PyPI."""
    if extra == "build":
        return "pip install ./zoo '.[build]' in a clone of sdpack"
    return f"pip install 'sdpack[{extra}]'"


class MissingPackageError(SdpackError):
    """An optional package is missing.

    Args:
        package: its name.
        extra: the extra of sdpack that installs it; "" if the device's vendor provides it.
        purpose: the operation that needs it; begins the message.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        how = (
            f"install it with: {install_command(extra)}"
            if extra
            else "the device's vendor provides it: JetPack on a Jetson, else NVIDIA's TensorRT"
        )
        super().__init__(f"{purpose} needs {package}; {how}")


class SourceError(SdpackError):
    """A checkpoint is missing, damaged, or of a class sdpack does not know."""


class ExportError(SdpackError):
    """A part could not be exported, or the export disagrees with the part."""


class SchedulerError(SdpackError):
    """A scheduler cannot be written as a table of coefficients."""


class GraphError(SdpackError):
    """An ONNX file is missing, damaged, or not valid."""


class QuantizationError(SdpackError):
    """A precision variant could not be made."""


class EngineError(SdpackError):
    """An engine could not be built, loaded or run."""


class UnsupportedGraphError(EngineError):
    """A compiler rejects a graph, or the device cannot represent its numbers."""


class BrokenPictureError(SdpackError):
    """An image has non-finite values, or all its values are equal."""


class StoreError(SdpackError):
    """The artifact store or the ledger cannot be read or written."""


class WorkerError(SdpackError):
    """Worker processes cannot be started, or die at the same job again and again."""


class BundleError(SdpackError):
    """A bundle is damaged, incomplete, or of a schema that this version cannot read."""
