"""Reproducible .npz archives, written one array at a time."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray


class Put(Protocol):
    """Writes one array under a name."""

    def __call__(self, name: str, values: NDArray[np.generic]) -> None: ...


@contextmanager
def archive(path: Path) -> Iterator[Put]:
    """Create an .npz file that `np.load` can read, and yield a function that adds arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:

        def put(name: str, values: NDArray[np.generic]) -> None:
            entry = zipfile.ZipInfo(f"{name}.npy")
            with target.open(entry, "w", force_zip64=True) as file:
                npy_format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)

        yield put
