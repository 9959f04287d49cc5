"""Errors of temporary graphs, reported under the name of the original graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpack.errors import EngineError


@contextmanager
def reported_as(path: Path, scratch: Path) -> Iterator[None]:
    """Replace the temporary file's path by the original's in errors of engines.

    Raises:
        EngineError: the same error, with the path replaced.
    """
    try:
        yield
    except EngineError as cause:
        raise type(cause)(str(cause).replace(str(scratch), str(path))) from cause
