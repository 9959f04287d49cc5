"""The interface of loaded engines."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Session(Protocol):
    """A loaded engine; the end of a `with` statement frees its memory."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run the engine, and return its outputs by name.

        Raises:
            EngineError: an input is missing or of the wrong shape, or the run failed.
        """
        ...

    def close(self) -> None:
        """Free its memory; `run` fails afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
