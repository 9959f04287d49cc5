"""Pickled weights as safetensors, for checkpoints that come in no other form."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

from sdpack.artifacts import digest, explain_io
from sdpack.errors import SourceError, StoreError

NAMES = {
    "pytorch_model.bin": "model.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
}


def convert_pickles(folder: Path) -> list[Path]:
    """Write every pickle of weights under a folder as .safetensors; returns what was written.

    Raises:
        SourceError: one is damaged, or holds anything but tensors.
        StoreError: the folder cannot be written.
    """
    return [_converted(path, target) for path, target in sorted(_found(folder))]


def without_pickles(folder: Path, kept: Path) -> Path:
    """A folder with the same files but its pickles, which are .safetensors in it.

    It is made in `kept`, once for files of these sizes and times; what was made of earlier ones is
    taken away.

    Raises:
        SourceError: it is no folder, or a pickle is damaged, or holds anything but tensors.
        StoreError: it cannot be written.
    """
    mine = kept / digest({"folder": str(folder.resolve())})
    target = mine / digest(_states(folder))
    if target.is_dir():
        return target
    shutil.rmtree(mine, ignore_errors=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        pickles = shutil.ignore_patterns(*NAMES)
        shutil.copytree(folder, unfinished, ignore=pickles)
        for path, safe in sorted(_found(folder)):
            _converted(path, unfinished / safe.relative_to(folder))
        unfinished.rename(target)
    except OSError as cause:
        raise StoreError(explain_io(cause, target)) from cause
    return target


def _states(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file under a folder, by its name there."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; give the one its weights are in")
    try:
        seen = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    except OSError as cause:
        raise SourceError(f"{folder} cannot be read ({cause.strerror}); check it") from cause
    return {
        path.relative_to(folder).as_posix(): [state.st_size, state.st_mtime_ns]
        for path, state in seen.items()
    }


def _found(folder: Path) -> Iterator[tuple[Path, Path]]:
    for name, target in NAMES.items():
        for path in folder.rglob(name):
            if not path.with_name(target).exists():
                yield path, path.with_name(target)


def _converted(path: Path, target: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise SourceError(
            f"{path} cannot be read as tensors alone ({reason}); it is damaged, or would run code"
        ) from cause
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise SourceError(f"{path} holds something else than named tensors; it is not converted")
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
