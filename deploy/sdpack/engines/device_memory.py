"""What is in use of the GPU's memory: at one moment, and at the most while something runs."""

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
    """Of the GPU's memory, in use by all that run there; 0 where CUDA does not say."""
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
    """The most that comes to be in use while this is entered, looked at every millisecond.

    It is the whole GPU's memory, whichever process takes it: nothing else may begin or end there
    meanwhile. What a process takes and gives back within a millisecond is not seen.
    """

    def __init__(self) -> None:
        used_bytes()  # the first look makes a context of our own, that is not to be counted
        self._before = self._most = used_bytes()
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    @property
    def peak_bytes(self) -> int:
        """More than before it was entered."""
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
    """What a process takes of the GPU's memory that does nothing there but look; 0: not known."""
    if used_bytes() == 0:
        return 0
    with DeviceMeter() as device:
        try:
            done = subprocess.run([sys.executable, "-c", LOOK], timeout=METER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return 0
    return device.peak_bytes if done.returncode == 0 else 0
