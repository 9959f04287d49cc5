"""Files with intermediate results of training, named by the hash of their inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def texts_digest(texts: Sequence[str]) -> str:
    """Return a short hash of texts, for the names of files made from them."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def weights_digest(model: Any) -> str:
    """Return a short hash of a model's weights, for the names of files made with them."""
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
