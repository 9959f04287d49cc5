"""Which memory is measured and set beside which prediction; that of a CPU is in tests/e2e."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import Gpu
from sdpack.engines.device_memory import DEVICE_PEAK
from sdpack.memory import verify as module
from sdpack.memory.meter import Metered
from sdpack.memory.verify import verify

MIB = 2**20
HOST, PREDICTED = 900 * MIB, 970 * MIB


def manifest_for(runtime: Runtime, unified: bool) -> Any:
    return SimpleNamespace(
        profile=SimpleNamespace(runtime=runtime, memory=SimpleNamespace(unified=unified)),
        memory=SimpleNamespace(budget_bytes=2**31, predicted_bytes=PREDICTED),
    )


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("built_for", [Runtime.ONNXRUNTIME_CUDA, Runtime.TENSORRT_RTX])
@pytest.mark.parametrize("device", [1000 * MIB, 1100 * MIB])
def test_a_picture_on_a_gpu(
    device: int,
    built_for: Runtime,
    looked: bool,
    unified: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = []

    def meter(command: list[str], cap: int) -> Metered:
        commands.append(command)
        assert cap > 2**31, "a GPU's budget does not cap the host"
        return Metered(HOST, True, json.dumps({DEVICE_PEAK: device if looked else 0}))

    monkeypatch.setattr(module, "meter", meter)
    monkeypatch.setattr(module, "memory_bytes", lambda: 2**40)
    monkeypatch.setattr(module, "gpus", lambda: [Gpu("NVIDIA H200", 2**37, 0, "9.0", "580")])
    seen = verify(tmp_path, manifest_for(built_for, unified), Runtime.ONNXRUNTIME_CUDA)
    of_gpu = looked and not unified
    compared = of_gpu and built_for is Runtime.ONNXRUNTIME_CUDA
    assert seen.of_gpu is of_gpu
    assert seen.host_bytes == HOST
    assert not seen.capped
    assert seen.measured_bytes == (device if of_gpu else HOST)
    assert seen.predicted_bytes == (PREDICTED if compared else None)
    assert seen.within is ((device == 1000 * MIB) if compared else None)  # 3 % or 13 % more
    assert (seen.machine == "NVIDIA H200") is of_gpu
    assert {"--least-memory", "--device-peak"} <= set(commands[0])
    assert (tmp_path / "verified.json").is_file()
