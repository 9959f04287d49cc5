"""Where images are drawn, on machines with and without a GPU; no GPU is used."""

from __future__ import annotations

import pytest
from sdpack.domain.precision import Runtime
from sdpack.engines import drawing, onnxruntime
from sdpack.engines.detect import Gpu
from sdpack.engines.drawing import DrawOn, drawing_runtime, drawing_words, runs_shipped_kernels
from sdpack.errors import InputError, MissingPackageError

CPU, CUDA, RTX = Runtime.ONNXRUNTIME_CPU, Runtime.ONNXRUNTIME_CUDA, Runtime.TENSORRT_RTX
CARD = Gpu("NVIDIA H100 PCIe", 80 * 2**30, 0, "9.0", "580.95")


def machine(monkeypatch: pytest.MonkeyPatch, gpus: list[Gpu], has_provider: bool) -> None:
    monkeypatch.setattr(drawing, "gpus", lambda: gpus)
    monkeypatch.setattr(drawing, "offers", lambda runtime: has_provider and runtime is CUDA)


@pytest.mark.parametrize(
    ("gpus", "has_provider", "draw_on", "profile", "chosen"),
    [
        ([CARD], True, DrawOn.AUTO, RTX, CUDA),
        ([CARD], True, DrawOn.AUTO, CUDA, CUDA),
        ([CARD], True, DrawOn.AUTO, CPU, CPU),
        ([CARD], False, DrawOn.AUTO, RTX, CPU),
        ([], True, DrawOn.AUTO, RTX, CPU),
        ([CARD], True, DrawOn.CPU, RTX, CPU),
        ([CARD], True, DrawOn.CUDA, RTX, CUDA),
    ],
)
def test_a_gpu_draws_where_it_can(
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[Gpu],
    has_provider: bool,
    draw_on: DrawOn,
    profile: Runtime,
    chosen: Runtime,
) -> None:
    machine(monkeypatch, gpus, has_provider)
    assert drawing_runtime(draw_on, profile) is chosen


@pytest.mark.parametrize(
    ("gpus", "has_provider", "profile", "error", "words"),
    [
        ([], True, RTX, InputError, "nvidia-smi lists no GPU"),
        ([CARD], False, RTX, MissingPackageError, "onnxruntime-gpu"),
        ([CARD], True, CPU, InputError, "runtime is onnxruntime-cpu, which only a CPU runs"),
    ],
)
def test_a_gpu_that_cannot_draw_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[Gpu],
    has_provider: bool,
    profile: Runtime,
    error: type[Exception],
    words: str,
) -> None:
    machine(monkeypatch, gpus, has_provider)
    with pytest.raises(error, match=words):
        drawing_runtime(DrawOn.CUDA, profile)


def test_scores_of_different_places_have_different_words(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, [CARD], has_provider=True)
    assert drawing_words(CPU, CPU) == "ONNX Runtime CPU"
    assert drawing_words(CPU, RTX) == "ONNX Runtime CPU in floating point"
    assert drawing_words(CUDA, RTX) == "ONNX Runtime CUDA on NVIDIA H100 PCIe in floating point"
    assert drawing_words(CUDA, CUDA) == "ONNX Runtime CUDA on NVIDIA H100 PCIe"
    assert runs_shipped_kernels(CUDA, CUDA)
    assert not runs_shipped_kernels(CUDA, RTX)


def test_emulation_on_a_gpu_computes_in_full_fp32() -> None:
    assert onnxruntime._provider_options(CUDA, emulate=True)["use_tf32"] == "0"
    assert "use_tf32" not in onnxruntime._provider_options(CUDA, emulate=False)
    assert onnxruntime._provider_options(CPU, emulate=True) == {}
