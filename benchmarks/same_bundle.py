"""Whether two bundles are the same, file by file: python -m benchmarks.same_bundle OLD NEW

Use this after a change that should not affect what is built. Files are compared by their bytes. If
these differ, images are compared by their pixels, and JSON by its keys and values. The ledger and
the report contain times of measurements; they are listed, but may differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

# Files that contain times and dates, or are drawn from such files.
MEASURED = ("ledger.jsonl", "report.html", "charts", "verified.json")
MEASURED_KEYS = frozenset({"seconds", "latency_s", "measured_at", "made_at", "files"})


@click.command()
@click.argument("old", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("new", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(old: Path, new: Path) -> None:
    """Compare two bundles; exits with 1 if they differ in anything but measured times."""
    names = sorted(files(old) | files(new))
    differing = 0
    for name in names:
        found = difference(old / name, new / name)
        measured = Path(name).parts[0] in MEASURED
        differing += bool(found) and not measured
        if found:
            click.echo(f"{name}: {found}{' (measured)' if measured else ''}")
    click.echo(f"{len(names)} files, {differing} of them differ")
    raise SystemExit(bool(differing))


def files(folder: Path) -> set[str]:
    """Return the names of all files in a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def difference(old: Path, new: Path) -> str:
    """Return how a file differs from another, or "" if it does not."""
    missing = [path for path in (old, new) if not path.is_file()]
    if missing:
        return f"{missing[0]} is missing"
    if old.read_bytes() == new.read_bytes():
        return ""
    if old.suffix == ".png":
        return _of_pictures(old, new)
    if old.suffix == ".json":
        values = (json.loads(path.read_text(encoding="utf-8")) for path in (old, new))
        return ", ".join(_of_values(*values))
    return f"{old.stat().st_size} and {new.stat().st_size} bytes, which differ"


def _of_pictures(old: Path, new: Path) -> str:
    one, other = (np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (old, new))
    if one.shape != other.shape:
        return f"pictures of shapes {one.shape} and {other.shape}"
    most = int(np.abs(one - other).max())
    return f"pixels differ by up to {most} of 255" if most else ""


def _of_values(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted((old.keys() | new.keys()) - MEASURED_KEYS):
            yield from _of_values(old.get(key), new.get(key), f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _of_values(*pair, f"{where}[{number}]")
    elif old != new:
        yield f"{where.lstrip('.')}: {old!r:.60} and {new!r:.60}"


if __name__ == "__main__":
    command()
