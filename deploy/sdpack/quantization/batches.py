"""A user's saved inputs of a graph: one .npz file per batch, with arrays named like the inputs."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.errors import InputError

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Batches(Sequence[Arrays]):
    """Batches that are read from disk on access.

    Attributes:
        files: one .npz file per batch.
        wanted: dtypes of the graph's inputs, by name.
    """

    files: tuple[Path, ...]
    wanted: dict[str, np.dtype[Any]]

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, place: int) -> Arrays: ...
    @overload
    def __getitem__(self, place: slice) -> list[Arrays]: ...
    def __getitem__(self, place: int | slice) -> Arrays | list[Arrays]:
        if isinstance(place, slice):
            return [self._read(path) for path in self.files[place]]
        return self._read(self.files[place])

    def check(self) -> None:
        """Check every file.

        Raises:
            InputError: a file cannot be read, or does not fit the graph's inputs.
        """
        for path in self.files:
            self._read(path)

    def _read(self, path: Path) -> Arrays:
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as cause:
            raise InputError(
                f"{path} is not an .npz file of arrays; save it with numpy.savez"
            ) from cause
        if arrays.keys() != self.wanted.keys():
            raise InputError(
                f"{path} has arrays named {_listed(arrays)}, but the graph takes "
                f"{_listed(self.wanted)}; rename the arrays"
            )
        return {name: self._typed(path, name, values) for name, values in arrays.items()}

    def _typed(self, path: Path, name: str, values: NDArray[Any]) -> NDArray[Any]:
        dtype = self.wanted[name]
        if not np.can_cast(values.dtype, dtype, "same_kind"):
            raise InputError(
                f"{path}: {name} is {values.dtype}, but the graph takes {dtype}; convert the array"
            )
        if np.issubdtype(values.dtype, np.inexact) and np.isnan(values).any():
            raise InputError(
                f"{path}: {name} holds {int(np.isnan(values).sum()):,} NaN of {values.size:,} "
                "numbers; save real inputs of the graph"
            )
        return np.ascontiguousarray(values.astype(dtype, copy=False))


def batches_for(model: ir.Model, places: Sequence[Path]) -> Batches:
    """Return the batches in these files and folders; files of a folder are sorted by name.

    Raises:
        InputError: there are none, or they do not fit the graph's inputs.
    """
    files: list[Path] = []
    for place in places:
        batch_files = sorted(place.glob("*.npz")) if place.is_dir() else [place]
        if not batch_files:
            raise InputError(f"{place} has no .npz files; save each batch there with numpy.savez")
        files += batch_files
    dtypes = {str(v.name): _dtype(v) for v in model.graph.inputs}
    batches = Batches(tuple(files), dtypes)
    batches.check()
    return batches


def _dtype(value: ir.Value) -> np.dtype[Any]:
    return np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())


def _listed(names: dict[str, Any]) -> str:
    return ", ".join(sorted(names)) or "nothing"
