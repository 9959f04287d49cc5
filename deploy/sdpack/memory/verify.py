"""What a bundle takes on this machine, beside what was predicted for its device."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from sdpack.documents.layout import VERIFIED
from sdpack.documents.manifest import Manifest
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import gpus, memory_bytes
from sdpack.engines.device_memory import DEVICE_PEAK
from sdpack.errors import StoreError
from sdpack.memory.meter import meter
from sdpack.store.artifacts import explain_io, write_whole

PROMPT = "a red heart"


@dataclass(frozen=True)
class Verified:
    """What was seen here.

    Attributes:
        measured_bytes: the most that drawing one picture took of the memory that was planned: a
            GPU's, without the CUDA context, which the reserve holds; or the host's.
        of_gpu: whether that is a GPU's.
        host_bytes: peak resident host memory of a process that draws one picture.
        capped: whether a hard cap of the bundle's budget was in force.
        predicted_bytes: what was predicted; None where the two cannot be compared: the runtime is
            not the profile's own, or CUDA does not tell what of a GPU's memory is in use. Where
            CPU and GPU share one memory, what CUDA tells is not the GPU's alone.
    """

    machine: str
    runtime: str
    measured_bytes: int
    of_gpu: bool
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

    On its own runtime the process is held to the bundle's budget, if that is a CPU's. On a GPU it
    looks itself at what is in use there: nothing else may begin or end on it meanwhile.

    Raises:
        MeterError: it failed, or took more than the budget.
        StoreError: the bundle's folder cannot be written.
    """
    own = runtime is manifest.profile.runtime
    on_cpu = not runtime.on_gpu
    cap = manifest.memory.budget_bytes if own and on_cpu else memory_bytes()
    with tempfile.TemporaryDirectory() as out:
        words = ["run", str(folder), PROMPT, "--runtime", runtime.value, "--out", out, "--json"]
        words += ["--least-memory"]  # as was planned
        words += [] if on_cpu else ["--device-peak"]
        seen = meter([sys.executable, "-m", "sdpack", *words], cap)
    device = 0
    if not on_cpu and not manifest.profile.memory.unified:
        device = int(json.loads(seen.output)[DEVICE_PEAK])
    comparable = own and (on_cpu or device > 0)
    found = Verified(
        _machine(device > 0),
        runtime.value,
        device or seen.peak_bytes,
        device > 0,
        seen.peak_bytes,
        seen.capped and own and on_cpu,
        manifest.memory.predicted_bytes if comparable else None,
    )
    try:
        write_whole(folder / VERIFIED, (json.dumps(asdict(found), indent=1) + "\n").encode())
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return found


def _machine(of_gpu: bool) -> str:
    """The GPU's name, if there is but one, or what the machine is."""
    found = gpus() if of_gpu else []
    return found[0].name if len(found) == 1 else f"{platform.machine()} {platform.system()}"
