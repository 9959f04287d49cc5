"""Virtual environments for packages that conflict with sdpack's, created once in its cache."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from sdpack.store.artifacts import cache_folder

TORCH = "torch==2.13.0"


def interpreter(name: str, packages: Sequence[str], folder: Path | None = None) -> Path:
    """Return the interpreter of an environment with these packages.

    PyTorch is installed first and by itself; other packages would install its CUDA dependencies.
    """
    folder = folder or cache_folder() / "environments" / name
    python, done = folder / "bin" / "python", folder / ".ready"
    if not done.exists() or done.read_text() != "\n".join(packages):
        venv.create(folder, clear=True, with_pip=True)
        for chosen in ((TORCH,), packages):
            subprocess.run([python, "-m", "pip", "install", "-q", *chosen], check=True)
        done.write_text("\n".join(packages))
    return python
