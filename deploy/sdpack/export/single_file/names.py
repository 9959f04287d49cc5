"""Names of checkpoints in a single file, and error messages for files where a folder is needed."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SAFE = (".safetensors", ".gguf")
SINGLE = (*SAFE, *PICKLES)  # checkpoints in one file
CATALOGS = (".yaml", ".yml")


def is_single_file(name: str) -> bool:
    """Whether this is the name of a checkpoint in a single file."""
    return name.lower().endswith(SINGLE)


def is_pickle(name: str) -> bool:
    """Whether this is the name of a checkpoint that may run code when it is read."""
    return name.lower().endswith(PICKLES)


def explain_pickle(path: Path) -> str:
    """Say how to make a file of tensors from a pickle, in one line."""
    return (
        f"{path} is a pickle, which may run any code when it is read; if you trust its source, "
        f"convert it with `sdpack catalog convert {quote(str(path))}`"
    )


def explain_file(path: Path) -> str:
    """Describe a file that was given in place of a folder, and the remedy, in one line."""
    if path.suffix.lower() in CATALOGS:
        return f"{path} is a file, not a model; if it is a catalog, use --catalog"
    if not is_single_file(path.name):
        return (
            f"{path} is a file; give the folder of a diffusers pipeline, which has model_index.json"
        )
    return (
        f"{path} is a checkpoint in a single file, but a catalog lists folders; make them, and a "
        f"catalog of them, with `sdpack catalog from {quote(str(path))} --out FOLDER`"
    )
