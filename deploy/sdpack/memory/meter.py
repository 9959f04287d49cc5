"""Measuring the peak memory of a command, under a hard cap if the system permits one.

The peak is the largest resident set of the process and its children, as the kernel reports it. The
cap is a memory control group (version 2 or 1), which kills processes that exceed it. Without
permission to create one, the peak is measured without a cap.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sdpack.errors import SdpackError
from sdpack.units import format_bytes

ROOT = Path("/sys/fs/cgroup")
KILLED = -9


class MeterError(SdpackError):
    """A measured command failed, or was killed because it exceeded its cap."""


@dataclass(frozen=True)
class Metered:
    """The memory use of a command.

    Attributes:
        peak_bytes: largest resident set.
        capped: whether a hard cap was in force.
        output: the command's standard output.
    """

    peak_bytes: int
    capped: bool
    output: str


@dataclass(frozen=True)
class ControlGroup:
    """A memory control group of the unified hierarchy (`version` 2) or the older one (1)."""

    folder: Path
    version: int

    def limit(self, cap_bytes: int) -> None:
        if self.version == 2:
            (self.folder / "memory.max").write_text(str(cap_bytes))
            with suppress(OSError):
                (self.folder / "memory.swap.max").write_text("0")
        else:
            (self.folder / "memory.limit_in_bytes").write_text(str(cap_bytes))
            with suppress(OSError):
                (self.folder / "memory.swappiness").write_text("0")

    def join(self) -> None:
        """Move the calling process into the group."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def control_group(cap_bytes: int, root: Path = ROOT) -> Iterator[ControlGroup | None]:
    """Provide a group with this cap, removed afterwards; None if none can be created."""
    group = _make_group(cap_bytes, root)
    try:
        yield group
    finally:
        if group is not None:
            with suppress(OSError):
                group.folder.rmdir()


def _make_group(cap_bytes: int, root: Path) -> ControlGroup | None:
    unified = (root / "cgroup.controllers").exists()
    parent, version = (root, 2) if unified else (root / "memory", 1)
    group = ControlGroup(parent / f"sdpack-{uuid.uuid4().hex[:12]}", version)
    try:
        group.folder.mkdir()
        group.limit(cap_bytes)
    except OSError:
        with suppress(OSError):
            group.folder.rmdir()
        return None
    return group


def meter(command: Sequence[str], cap_bytes: int, root: Path = ROOT) -> Metered:
    """Run a command and measure its peak memory.

    Args:
        command: the command and its arguments.
        cap_bytes: memory limit, enforced if a control group can be created.
        root: mount point of control groups.

    Raises:
        MeterError: the command failed, or was killed.
    """
    with control_group(cap_bytes, root) as group:
        wrapped = [sys.executable, "-m", __name__, *command]
        # The wrapper's only child is the command, so the kernel's figure for children is its own.
        done = subprocess.run(
            wrapped,
            capture_output=True,
            text=True,
            env={**os.environ, GROUP: "" if group is None else f"{group.version}:{group.folder}"},
        )
    peak, _, output = done.stdout.partition("\n")
    if done.returncode != 0:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == 128 - KILLED and group is not None:
            raise MeterError(f"killed for using more than {format_bytes(cap_bytes)}")
        raise MeterError(f"the measured command ended with status {done.returncode}: {message}")
    return Metered(int(peak), group is not None, output)


GROUP = "SDPACK_METER_GROUP"


def _wrap(command: Sequence[str]) -> int:
    """Run a command in the group named by the environment; print its peak, then its output."""
    version, _, folder = os.environ.pop(GROUP, "").partition(":")
    group = ControlGroup(Path(folder), int(version)) if folder else None
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=None if group is None else group.join
    )
    # ru_maxrss is in KiB on Linux.
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    print(done.stdout, end="")
    return 128 - done.returncode if done.returncode < 0 else done.returncode


if __name__ == "__main__":
    sys.exit(_wrap(sys.argv[1:]))
