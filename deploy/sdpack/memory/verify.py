"""What a bundle takes on this machine, beside what was predicted for its device."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from sdpack.artifacts import explain_io
from sdpack.bundle import VERIFIED, Manifest
from sdpack.detect import gpus, memory_bytes
from sdpack.engines.device_memory import DeviceMeter, context_bytes, used_bytes
from sdpack.errors import StoreError
from sdpack.memory.meter import meter
from sdpack.precision import Runtime

PROMPT = "a red heart"


@dataclass(frozen=True)
class Verified:
    """What was seen here.

    Attributes:
        measured_bytes: the most that drawing one picture took of the memory that was planned: a
            GPU's, less what any program takes there; or the host's.
        host_bytes: peak resident host memory of a process that draws one picture.
        capped: whether a hard cap of the bundle's budget was in force.
        predicted_bytes: what was predicted; None where the two cannot be compared: the runtime is
            not the profile's own, or nobody can look at the GPU's memory.
    """

    machine: str
    runtime: str
    measured_bytes: int
    host_bytes: int
    capped: bool
    predicted_bytes: int | None

    @property
    def within(self) -> bool | None:
        """Whether the peak was at most 5 % above its prediction; None where there is none."""
        if self.predicted_bytes is None:
            return None
        return self.measured_bytes <= 1.05 * self.predicted_bytes


def verify(folder: Path, manifest: Manifest, runtime: Runtime) -> Verified:
    """Draw one picture in a process of its own, write down what it took, and return it.

    On its own runtime the process is held to the bundle's budget, if that is a CPU's.

    Raises:
        MeterError: it failed, or took more than the budget.
        StoreError: the bundle's folder cannot be written.
    """
    own = runtime is manifest.profile.runtime
    cap = manifest.memory.budget_bytes if own and not runtime.on_gpu else memory_bytes()
    looked_at = runtime.on_gpu and used_bytes() > 0
    with tempfile.TemporaryDirectory() as out:
        words = ["run", str(folder), PROMPT, "--runtime", runtime.value, "--out", out, "--json"]
        words += ["--least-memory"]  # as was planned
        command = [sys.executable, "-m", "sdpack", *words]
        with DeviceMeter() if looked_at else nullcontext() as device:
            seen = meter(command, cap)
    measured = seen.peak_bytes if device is None else device.peak_bytes - context_bytes()
    comparable = own and (looked_at or not runtime.on_gpu)
    found = Verified(
        gpus()[0].name if looked_at and gpus() else f"{platform.machine()} {platform.system()}",
        runtime.value,
        measured,
        seen.peak_bytes,
        seen.capped and own and not runtime.on_gpu,
        manifest.memory.predicted_bytes if comparable else None,
    )
    try:
        (folder / VERIFIED).write_text(json.dumps(asdict(found), indent=1) + "\n")
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return found
