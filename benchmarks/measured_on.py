"""The machine and the package versions that a benchmark's figures belong to."""

from __future__ import annotations

import os
import platform

from sdpack.version import versions


def machine_and_versions(*packages: str) -> str:
    """Return one line: processor, cores that this process may use, Python, and these packages.

    A package that is not installed has "-" for its version.
    """
    python = {"Python": platform.python_version()}
    parts = [platform.machine(), f"{len(os.sched_getaffinity(0))} cores"]
    return ", ".join(
        parts + [f"{name} {v}" for name, v in {**python, **versions(packages)}.items()]
    )
