"""The meter, against a stand-in for CUDA: what only a GPU can show is not shown here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sdpack.engines import device_memory
from sdpack.engines.device_memory import DeviceMeter, context_bytes, used_bytes

TOTAL, CONTEXT = 2**32, 500 * 2**20


class Gpu:
    """Whose first look makes a context, as CUDA's does."""

    def __init__(self) -> None:
        self.used, self.looks, self.error = 0, 0, 0

    def cudaMemGetInfo(self) -> tuple[int, ...]:  # noqa: N802
        self.looks += 1
        if self.looks == 1:
            self.used += CONTEXT
        return self.error, TOTAL - self.used, TOTAL


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu()
    monkeypatch.setattr(device_memory, "importlib", SimpleNamespace(import_module=lambda _: found))
    return found


def seen_by(gpu: Gpu, looks: int) -> None:
    """Wait until somebody has looked so many times more."""
    wanted, until = gpu.looks + looks, time.monotonic() + 10
    while gpu.looks < wanted and time.monotonic() < until:
        time.sleep(0.001)


def test_the_most_in_use_is_told_without_our_own_context(gpu: Gpu) -> None:
    gpu.used = 10
    with DeviceMeter() as meter:
        for more in (700, 200, 900, 0):
            gpu.used = 10 + CONTEXT + more
            seen_by(gpu, 3)
    assert meter.peak_bytes == 900
    looks = gpu.looks
    time.sleep(0.01)
    assert gpu.looks == looks, "nobody looks any more"


@pytest.mark.parametrize("outcome", [0, -11, None])
def test_a_context_is_what_a_process_takes_that_does_nothing(
    outcome: int | None, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it comes to its end: it may crash, and it may hang."""

    def run(command: list[str], timeout: float) -> SimpleNamespace:
        gpu.used += 300
        seen_by(gpu, 3)
        gpu.used -= 300
        if outcome is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=outcome)

    monkeypatch.setattr(
        device_memory,
        "subprocess",
        SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired),
    )
    assert context_bytes() == (300 if outcome == 0 else 0)


def missing(_: str) -> Any:
    raise ImportError


def broken(_: str) -> Any:
    raise RuntimeError("no driver")


def failing(_: str) -> Any:
    return SimpleNamespace(cudaMemGetInfo=lambda: (35, None, None))


@pytest.mark.parametrize("module", [missing, broken, failing])
def test_without_cuda_nothing_is_in_use(
    module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "importlib", SimpleNamespace(import_module=module))
    monkeypatch.setattr(device_memory, "subprocess", None)  # nothing is started
    assert used_bytes() == 0
    assert context_bytes() == 0


def test_what_looks_is_a_program() -> None:
    """It is started by its source, in another process: here it finds no GPU, and says nothing."""
    done = subprocess.run([sys.executable, "-c", device_memory.LOOK], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
