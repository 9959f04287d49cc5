"""Measured memory use of a bundle on this machine, compared with its prediction."""

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
from sdpack.store.files import explain_io, write_whole

PROMPT = "a red heart"


@dataclass(frozen=True)
class Verified:
    """The memory use measured on this machine.

    Attributes:
        machine: the GPU's name, or the machine's architecture and system.
        runtime: the runtime that drew.
        measured_bytes: peak while drawing one image: of GPU memory without the CUDA context (which
            the profile's reserve covers), or of host memory.
        of_gpu: whether `measured_bytes` is GPU memory.
        host_bytes: peak resident host memory of the same process.
        capped: whether the bundle's budget was enforced as a hard cap.
        predicted_bytes: the prediction; None if it is not comparable, because the runtime is not
            the profile's or CUDA does not report the GPU memory in use. If CPU and GPU share
            memory, CUDA's figure also includes other memory.
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
        """Whether the peak was at most 5 % above its prediction; None without a prediction."""
        if self.predicted_bytes is None:
            return None
        return self.measured_bytes <= 1.05 * self.predicted_bytes


def verify(folder: Path, manifest: Manifest, runtime: Runtime) -> Verified:
    """Draw one image in a separate process, and write its memory use to verified.json.

    With the profile's own runtime on a CPU, the process is limited to the bundle's budget. On a
    GPU, the process samples the memory in use, so no other program may start or stop on the GPU
    meanwhile.

    Raises:
        MeterError: the process failed, or exceeded the budget.
        StoreError: the bundle's folder cannot be written.
    """
    profile = manifest.profile
    own = runtime is profile.runtime
    on_cpu = not runtime.on_gpu
    cap = manifest.memory.budget_bytes if own and on_cpu else memory_bytes()
    with tempfile.TemporaryDirectory() as out:
        words = ["run", str(folder), PROMPT, "--runtime", runtime.value, "--out", out, "--json"]
        words += ["--least-memory"]  # as in the prediction
        words += [] if on_cpu else ["--device-peak"]
        metered = meter([sys.executable, "-m", "sdpack", *words], cap)
    device = 0
    if not on_cpu and not profile.memory.unified:
        device = int(json.loads(metered.output)[DEVICE_PEAK])
    comparable = own and (on_cpu or device > 0)
    verified = Verified(
        _machine(device > 0),
        runtime.value,
        device or metered.peak_bytes,
        device > 0,
        metered.peak_bytes,
        metered.capped and own and on_cpu,
        manifest.memory.predicted_bytes if comparable else None,
    )
    try:
        write_whole(folder / VERIFIED, (json.dumps(asdict(verified), indent=1) + "\n").encode())
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return verified


def _machine(of_gpu: bool) -> str:
    """Return the name of the only GPU, or else the machine's architecture and system."""
    devices = gpus() if of_gpu else []
    return devices[0].name if len(devices) == 1 else f"{platform.machine()} {platform.system()}"
