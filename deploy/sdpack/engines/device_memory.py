"""GPU memory in use: now, and the peak while something runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from typing import Self

SAMPLING_INTERVAL_S = 0.001
METER_TIMEOUT_S = 60
DEVICE_PEAK = "device_peak_bytes"  # of what `sdpack run --json --device-peak` tells
LOOK = f"from {__name__} import used_bytes; used_bytes()"


def used_bytes() -> float:
    """Return the GPU memory in use by all processes; 0 if CUDA cannot report it."""
    try:
        cuda = importlib.import_module("cuda.bindings.runtime")
        error, *memory = cuda.cudaMemGetInfo()
    except (ImportError, RuntimeError):
        return 0.0
    if int(error) != 0:
        return 0.0
    free, total = memory
    return float(total - free)


class DeviceMeter:
    """Measures the peak of the GPU memory in use within a `with` statement, every millisecond.

    It measures all processes together, so no other program may start or stop on the GPU meanwhile.
    Allocations that last less than a millisecond may be missed.
    """

    def __init__(self) -> None:
        used_bytes()  # the first call creates a CUDA context, which must not count
        self._before = self._most = used_bytes()
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    @property
    def peak_bytes(self) -> int:
        """The peak minus the memory in use before."""
        return int(self._most - self._before)

    def _look(self) -> None:
        while not self._ended.is_set():
            self._most = max(self._most, used_bytes())
            self._ended.wait(SAMPLING_INTERVAL_S)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()


def context_bytes() -> int:
    """Measure the GPU memory of a process that only creates a CUDA context; 0 if unknown."""
    if used_bytes() == 0:
        return 0
    with DeviceMeter() as device:
        try:
            done = subprocess.run([sys.executable, "-c", LOOK], timeout=METER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return 0
    return device.peak_bytes if done.returncode == 0 else 0
