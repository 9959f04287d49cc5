"""Measures the time and the private memory of a command."""

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
    """Time and memory of a command and the processes it started.

    Attributes:
        private_bytes: largest resident memory that does not belong to mapped files.
        failed: the last line of output if the command failed.
        resident_bytes: largest resident memory; shared memory counts once for each process.
        said: all output.
    """

    seconds: float
    private_bytes: int
    failed: str | None
    resident_bytes: int = 0
    said: str = ""


def take(
    command: Sequence[str | Path],
    limit_s: float,
    variables: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Taken:
    """Run a command in a folder, with additional environment variables."""
    environment = {**os.environ, **(variables or {})}
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        running = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=folder
        )
        most, resident, late = 0, 0, False
        while running.poll() is None:
            seen = [memory(process) for process in family(running.pid)]
            most = max(most, sum(private for private, _ in seen))
            resident = max(resident, sum(whole for _, whole in seen))
            late = time.perf_counter() - started > limit_s
            if late:
                running.kill()
                running.wait()
                break
            time.sleep(EVERY_S)
        seconds = time.perf_counter() - started
        said.seek(0)
        words = said.read()
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    if late:
        return Taken(seconds, most, f"not done after {limit_s:.0f} s", resident, words)
    failed = (lines or ["no word"])[-1] if running.returncode != 0 else None
    return Taken(seconds, most, failed, resident, words)


def family(process: int) -> Iterator[int]:
    """Return a process and all processes it started."""
    yield process
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return  # it has ended


def memory(process: int) -> tuple[int, int]:
    """Return the private and resident bytes of a process, or zeros if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kept = {x.split(":")[0]: int(x.split()[1]) * 1024 for x in lines if x.startswith("Rss")}
    private = kept.get("RssAnon", 0) + kept.get("RssShmem", 0)
    return private, private + kept.get("RssFile", 0)
