"""Workers that only wait, to measure what a task costs beside its work."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sdpack.progress import Say
from sdpack.workers.jobs import Handle

ROOT = Path(__file__).parents[1]


def make_importable() -> None:
    """Let processes that are started from now on import this module."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def open_waiting() -> Handle:
    """A worker's function that waits for as many seconds as its task says."""
    return _wait


def _wait(seconds: float, say: Say) -> float:
    time.sleep(seconds)
    return seconds
