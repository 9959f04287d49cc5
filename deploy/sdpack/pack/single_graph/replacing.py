"""Replacing an ONNX file together with its weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpack.errors import StoreError
from sdpack.store.files import explain_io


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Give a temporary path for a graph, which replaces the one at `out` once it is complete.

    Raises:
        StoreError: the folder cannot be written, or the disk is full.
    """
    try:
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    except OSError as cause:
        raise StoreError(explain_io(cause, out.parent)) from cause
    try:
        target = folder / out.name
        yield target
        # An old graph is never left beside new weights.
        out.unlink(missing_ok=True)
        for name in (f"{out.name}.data", out.name):
            if (folder / name).exists():
                (folder / name).replace(out.parent / name)
    except OSError as cause:
        raise StoreError(explain_io(cause, out)) from cause
    finally:
        shutil.rmtree(folder, ignore_errors=True)
