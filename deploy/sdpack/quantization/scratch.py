"""Graphs written for a moment: what goes wrong with one is told of the graph it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpack.errors import EngineError


@contextmanager
def told_of(path: Path, scratch: Path) -> Iterator[None]:
    """Name `path` where an engine's error names the file made from it.

    Raises:
        EngineError: of the same class, with the name replaced.
    """
    try:
        yield
    except EngineError as cause:
        raise type(cause)(str(cause).replace(str(scratch), str(path))) from cause
