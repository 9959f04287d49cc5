"""A fresh interpreter."""

from __future__ import annotations

import subprocess
import sys


def python(code: str, *words: str) -> str:
    """What a fresh interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
