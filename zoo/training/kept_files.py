"""Intermediate results of training as files, named after what they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def texts_digest(texts: Sequence[str]) -> str:
    """A short name for texts, so that what was made of others is not taken for theirs."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def weights_digest(model: Any) -> str:
    """A short name for a model's weights, as `texts_digest` is for texts."""
    h = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        h.update(name.encode())
        h.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:12]


def write_whole(write: Callable[[Path], None], path: Path) -> None:
    """Write a file under another name, and rename it once it is complete."""
    unfinished = path.with_name(f"{path.name}.partial")
    write(unfinished)
    unfinished.replace(path)


def save_whole(value: Any, path: Path) -> None:
    """Save a value completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(lambda p: torch.save(value, p), path)
