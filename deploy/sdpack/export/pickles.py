"""Conversion of pickled weights to safetensors, for checkpoints that have nothing else."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdpack.errors import SourceError, StoreError
from sdpack.store.artifacts import digest
from sdpack.store.files import explain_io

NAMES = {
    "pytorch_model.bin": "model.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
}
SAFE = ".safetensors"
STATE = "state_dict"  # of the tensors, in checkpoints of a training
INDEX_SUFFIX = ".index.json"  # after the name of weights in several files: which tensor is in which


def convert_pickles(folder: Path) -> list[Path]:
    """Write every weight pickle under a folder as .safetensors beside it; return the new files.

    Sharded weights keep their shards, with a new index.

    Raises:
        SourceError: a pickle is damaged, or holds anything but tensors.
        StoreError: the folder cannot be written.
    """
    return [_written(path, target) for path, target in _in_order(folder)]


def convert_pickle(path: Path) -> Path:
    """Write the tensors of one pickle, such as a .ckpt, as .safetensors beside it.

    Raises:
        SourceError: it is damaged, holds anything but tensors, or was converted before.
        StoreError: the file cannot be written.
    """
    target = path.with_suffix(SAFE)
    if target.exists():
        raise SourceError(f"{target} exists already; remove it to convert {path} again")
    return _converted(path, target)


def without_pickles(folder: Path, kept: Path) -> Path:
    """Return a copy of a folder with .safetensors instead of pickles.

    The copy is cached in `kept` until a size or time of the original's files changes.

    Raises:
        SourceError: it is not a folder, or a pickle is damaged or holds anything but tensors.
        StoreError: the copy cannot be written.
    """
    mine = kept / digest({"folder": str(folder.resolve())})
    target = mine / digest(_states(folder))
    if target.is_dir():
        return target
    shutil.rmtree(mine, ignore_errors=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        pickled = shutil.ignore_patterns(
            "*pytorch_model*.bin", f"*pytorch_model*.bin{INDEX_SUFFIX}"
        )
        shutil.copytree(folder, unfinished, ignore=pickled)
        for path, safe in _in_order(folder):
            _written(path, unfinished / safe.relative_to(folder))
        unfinished.rename(target)
    except OSError as cause:
        raise StoreError(explain_io(cause, target)) from cause
    return target


def _states(folder: Path) -> dict[str, list[int]]:
    """Return size in bytes and mtime in ns of every file under a folder, by relative path."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; give the one that holds the weights")
    try:
        seen = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    except OSError as cause:
        raise SourceError(f"{folder} cannot be read ({cause.strerror}); check it") from cause
    return {
        path.relative_to(folder).as_posix(): [state.st_size, state.st_mtime_ns]
        for path, state in seen.items()
    }


def _in_order(folder: Path) -> list[tuple[Path, Path]]:
    """Return pickles and indexes with their targets; indexes last, after the files they name."""
    return sorted(_found(folder), key=lambda pair: (pair[0].name.endswith(INDEX_SUFFIX), pair))


def _found(folder: Path) -> Iterator[tuple[Path, Path]]:
    for name, target in NAMES.items():
        for path in folder.rglob(name):
            if not path.with_name(target).exists():
                yield path, path.with_name(target)
        for index in folder.rglob(f"{name}{INDEX_SUFFIX}"):
            if index.with_name(f"{target}{INDEX_SUFFIX}").exists():
                continue
            yield index, index.with_name(f"{target}{INDEX_SUFFIX}")
            for shard in sorted(set(_listed(index)["weight_map"].values())):
                yield index.with_name(shard), index.with_name(_safe(shard))


def _safe(shard: str) -> str:
    """Return the name of a pickle's shard as safetensors."""
    stem, _, rest = shard.partition("pytorch_model")
    named = "diffusion_pytorch_model" if stem.endswith("diffusion_") else "model"
    return f"{named}{rest.removesuffix('.bin')}.safetensors"


def _listed(index: Path) -> dict[str, Any]:
    try:
        listed = json.loads(index.read_text())
        names = set(listed["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as cause:
        raise SourceError(f"{index} cannot be read ({cause!r}); restore it") from cause
    odd = sorted(name for name in names if Path(name).name != name or "pytorch_model" not in name)
    if odd:
        raise SourceError(f"{index} names {odd[0]!r}, which is not a shard beside it; restore it")
    return dict(listed)


def _written(path: Path, target: Path) -> Path:
    if not path.name.endswith(INDEX_SUFFIX):
        return _converted(path, target)
    listed = _listed(path)
    listed["weight_map"] = {name: _safe(shard) for name, shard in listed["weight_map"].items()}
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        unfinished.write_text(json.dumps(listed, indent=1) + "\n")
        unfinished.replace(target)
    except OSError as cause:
        raise StoreError(explain_io(cause, target)) from cause
    return target


def _converted(path: Path, target: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    try:
        mapped = zipfile.is_zipfile(path)  # older ones are no archives, and cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(
            f"{path} cannot be read as plain tensors ({reason}); it is damaged, or would run code"
        ) from cause
    if isinstance(state, dict) and isinstance(state.get(STATE), dict):
        state = state[STATE]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise SourceError(f"{path} holds something other than named tensors; it is not converted")
    # Tied weights share their memory, which safetensors does not keep.
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        save_file(tensors, unfinished, metadata={"format": "pt"})
        unfinished.replace(target)
    except OSError as cause:
        unfinished.unlink(missing_ok=True)
        raise StoreError(explain_io(cause, target)) from cause
    return target
