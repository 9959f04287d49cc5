"""Which memory is measured and set beside which prediction; that of a CPU is in tests/e2e."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import pytest
from sdpack.detect import Gpu
from sdpack.memory import verify as module
from sdpack.memory.meter import Metered
from sdpack.memory.verify import verify
from sdpack.precision import Runtime

MIB = 2**20
HOST, DEVICE, CONTEXT, PREDICTED = 900 * MIB, 1500 * MIB, 500 * MIB, 970 * MIB


class Meter:
    peak_bytes = DEVICE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def manifest_for(runtime: Runtime) -> Any:
    return SimpleNamespace(
        profile=SimpleNamespace(runtime=runtime),
        memory=SimpleNamespace(budget_bytes=2**31, predicted_bytes=PREDICTED),
    )


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("built_for", [Runtime.ONNXRUNTIME_CUDA, Runtime.TENSORRT_RTX])
def test_a_picture_on_a_gpu(
    built_for: Runtime, looked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def meter(command: list[str], cap: int) -> Metered:
        commands.append(command)
        assert cap > 2**31, "a GPU's budget does not cap the host"
        return Metered(HOST, True, "")

    monkeypatch.setattr(module, "meter", meter)
    monkeypatch.setattr(module, "DeviceMeter", Meter)
    monkeypatch.setattr(module, "used_bytes", lambda: float(looked))
    monkeypatch.setattr(module, "context_bytes", lambda: CONTEXT)
    monkeypatch.setattr(module, "memory_bytes", lambda: 2**40)
    monkeypatch.setattr(module, "gpus", lambda: [Gpu("NVIDIA H200", 2**37, 0, "9.0", "580")])
    seen = verify(tmp_path, manifest_for(built_for), Runtime.ONNXRUNTIME_CUDA)
    own = built_for is Runtime.ONNXRUNTIME_CUDA
    assert seen.host_bytes == HOST
    assert not seen.capped
    assert seen.measured_bytes == (DEVICE - CONTEXT if looked else HOST)
    assert seen.predicted_bytes == (PREDICTED if looked and own else None)
    assert seen.within is (True if looked and own else None)  # 1000 of 970 MiB, 3 % more
    assert (seen.machine == "NVIDIA H200") is looked
    assert "--least-memory" in commands[0]
    assert (tmp_path / "verified.json").is_file()
