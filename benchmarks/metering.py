"""What a command takes: seconds, and memory that is its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.02


@dataclass(frozen=True)
class Taken:
    """Of a command and the processes it started.

    Attributes:
        private_bytes: the most that was resident at once and no mapped file's.
        failed: the last line it said if it failed.
    """

    seconds: float
    private_bytes: int
    failed: str | None


def take(
    command: Sequence[str | Path],
    limit_s: float,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Taken:
    """Run a command, with these environment variables besides those there are, in a folder."""
    environment = {**os.environ, **(variables or {})}
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        running = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        most, late = 0, False
        while running.poll() is None:
            most = max(most, sum(_private(process) for process in family(running.pid)))
            late = time.perf_counter() - started > limit_s
            if late:
                running.kill()
                running.wait()
                break
            time.sleep(EVERY_S)
        seconds = time.perf_counter() - started
        said.seek(0)
        lines = [line.strip() for line in said.read().splitlines() if line.strip()]
    if late:
        return Taken(seconds, most, f"not done after {limit_s:.0f} s")
    failed = running.returncode != 0
    return Taken(seconds, most, (lines or ["no word"])[-1] if failed else None)


def family(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return  # it has ended


def _private(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(x.split()[1]) * 1024 for x in lines if x.startswith(("RssAnon:", "RssShmem:")))
