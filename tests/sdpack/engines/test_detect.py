from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sdpack.documents.document import parse_document
from sdpack.documents.profile import Profile
from sdpack.domain.precision import Runtime
from sdpack.engines import detect
from sdpack.errors import ProfileError

LISTING = """\
NVIDIA GeForce RTX 3050 Laptop GPU, 4096, 312, 8.6, 580.65
NVIDIA H200, 143771, 0, 9.0, 580.65
[N/A], [N/A], [N/A], [N/A], [N/A]
"""


def parsed(text: str) -> Profile:
    return parse_document(text, "detected", Profile, ProfileError)


def test_nvidia_smi_s_lines() -> None:
    laptop, h200 = detect.parse_gpus(LISTING)
    assert laptop.memory_bytes == 4 * 2**30
    assert laptop.used_bytes == 312 * 2**20
    assert h200.compute_capability == "9.0"
    assert detect.parse_gpus("no devices were found\n") == []


@pytest.mark.parametrize(
    ("line", "runtime"), [(0, Runtime.TENSORRT_RTX), (1, Runtime.ONNXRUNTIME_CUDA)]
)
def test_a_gpu_s_profile(line: int, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = detect.parse_gpus(LISTING)[line]
    monkeypatch.setattr(detect, "gpus", lambda: [gpu])
    monkeypatch.setattr(detect, "jetson_model", lambda: None)
    profile = parsed(detect.detected_profile())
    assert profile.runtime is runtime
    assert profile.memory.total == gpu.memory_bytes
    assert profile.memory.reserve >= gpu.used_bytes + 300 * 2**20
    assert profile.description == gpu.name
    assert "estimate" in profile.memory.reserve_source
    looked: list[int] = []

    def listed() -> list[detect.Gpu]:
        context = sum(looked)  # nvidia-smi counts our own, once there is one
        return [replace(gpu, used_bytes=gpu.used_bytes + context)]

    def context_bytes() -> int:
        looked.append(523 * 2**20)
        return 523 * 2**20

    monkeypatch.setattr(detect, "gpus", listed)
    seen = parsed(detect.detected_profile(context_bytes))
    assert seen.memory.reserve < gpu.used_bytes + 524 * 2**20, "counted once"
    assert seen.memory.reserve >= gpu.used_bytes + 523 * 2**20
    assert "523.0 MiB for a CUDA context, as measured here" in seen.memory.reserve_source


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "gpus", list)
    monkeypatch.setattr(detect, "jetson_model", lambda: None)
    profile = parsed(detect.detected_profile())
    assert profile.runtime is Runtime.ONNXRUNTIME_CPU
    assert profile.memory.total == detect.memory_bytes() // 2**20 * 2**20


def test_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert detect.jetson_model(model) == "NVIDIA Jetson Orin Nano Developer Kit"
    model.write_bytes(b"Raspberry Pi 5\0")
    assert detect.jetson_model(model) is None
    monkeypatch.setattr(detect, "jetson_model", lambda: 'NVIDIA "Jetson"')
    profile = parsed(detect.detected_profile())
    assert profile.sm == "SM87"
    assert profile.memory.unified


def test_memory_that_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemFree: 12 kB\n")
    with pytest.raises(ProfileError, match="write a profile by hand"):
        detect.memory_bytes(path)
