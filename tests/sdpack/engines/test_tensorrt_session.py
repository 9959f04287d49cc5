"""The session's bookkeeping, against a stand-in for TensorRT and CUDA in host memory.

The stand-in's engine doubles its input. What only a GPU can show is not shown here.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sdpack.engines import tensorrt_session
from sdpack.engines.tensorrt_session import TensorRTSession, load
from sdpack.errors import EngineError

SCRATCH = 1000


class Cuda:
    """cudaMalloc and its like on host memory; keeps what is taken and not given back."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self, limit: int = 10**9, driver: bool = True) -> None:
        self.taken: dict[int, Any] = {}
        self.peak = 0
        self.limit, self.driver = limit, driver

    def cudaMemGetInfo(self) -> tuple[Any, ...]:  # noqa: N802
        return (0, 1, 1) if self.driver else (35, None, None)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:  # noqa: N802
        return 0, {2: b"out of memory", 35: b"driver too old"}[error]

    def cudaStreamCreate(self) -> tuple[int, int]:  # noqa: N802
        return 0, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        return (0,)

    cudaStreamDestroy = cudaStreamSynchronize  # noqa: N815

    def cudaMalloc(self, count: int) -> tuple[int, int | None]:  # noqa: N802
        if sum(len(b) for b in self.taken.values()) + count > self.limit:
            return 2, None
        block = ctypes.create_string_buffer(count)
        self.taken[ctypes.addressof(block)] = block
        self.peak = max(self.peak, sum(len(b) for b in self.taken.values()))
        return 0, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.taken[address]
        return (0,)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, count: int, kind: int, stream: int
    ) -> tuple[int]:
        ctypes.memmove(target, source, count)
        return (0,)


class Context:
    def __init__(self) -> None:
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= 4

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH

    def set_device_memory(self, address: int, count: int) -> None:
        assert count == SCRATCH

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def get_tensor_address(self, name: str) -> int:
        return self.addresses[name]

    def execute_async_v3(self, stream: int) -> bool:
        count = int(np.prod(self.shape))
        x, y = (
            np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.addresses[name]))
            for name in ("x", "y")
        )
        y[:] = 2 * x
        return True


class Engine:
    num_io_tensors = 2

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == "user"
        return Context()

    def get_tensor_name(self, number: int) -> str:
        return "xy"[number]

    def get_tensor_mode(self, name: str) -> str:
        return {"x": "in", "y": "out"}[name]

    def get_tensor_dtype(self, name: str) -> str:
        return "float"


class Logger:
    ERROR = 1

    def __init__(self, level: int) -> None: ...


class Runtime:
    def __init__(self, logger: Logger) -> None: ...

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        return Engine() if plan == b"plan" else None


TRT = SimpleNamespace(
    ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user"),
    TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
    nptype=lambda _: np.float32,
    Logger=Logger,
    Runtime=Runtime,
    __version__="0",
)


def session(cuda: Cuda) -> TensorRTSession:
    return TensorRTSession(Path("model.plan"), Engine(), TRT, cuda)


def test_inputs_go_up_and_outputs_come_down() -> None:
    cuda = Cuda()
    x = np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::-1]
    with session(cuda) as loaded:
        (y,) = loaded.run({"x": x, "unused": x}).values()
        again = loaded.run({"x": x[:1]})["y"]
    assert np.array_equal(y, 2 * x)
    assert np.array_equal(again, 2 * x[:1])


def test_a_run_gives_back_everything_it_took() -> None:
    cuda = Cuda()
    x = np.ones((4, 25), np.float32)
    with session(cuda) as loaded:
        loaded.run({"x": x})
        assert cuda.taken == {}
    assert cuda.peak == SCRATCH + 2 * x.nbytes


def test_a_full_gpu_is_told_and_nothing_leaks() -> None:
    cuda = Cuda(limit=SCRATCH + 100)
    with session(cuda) as loaded, pytest.raises(EngineError, match="out of memory"):
        loaded.run({"x": np.ones((4, 25), np.float32)})
    assert cuda.taken == {}


def test_wrong_inputs_are_explained() -> None:
    loaded = session(Cuda())
    with pytest.raises(EngineError, match="input x is missing"):
        loaded.run({"z": np.ones(3)})
    with pytest.raises(EngineError, match=r"cannot have shape \(5, 2\)"):
        loaded.run({"x": np.ones((5, 2))})
    loaded.close()
    with pytest.raises(EngineError, match="was closed"):
        loaded.run({"x": np.ones((1, 2))})


@pytest.mark.parametrize(
    ("plan", "driver", "said"),
    [
        (b"other", True, "built for another GPU"),
        (b"plan", False, "driver too old"),
        (None, True, "cannot be read"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: bytes | None, driver: bool, said: str
) -> None:
    path = tmp_path / "model.plan"
    if plan is not None:
        path.write_bytes(plan)
    packages = (TRT, Cuda(driver=driver))
    monkeypatch.setattr(tensorrt_session, "_packages", lambda _: packages)
    with pytest.raises(EngineError, match=said):
        load("tensorrt_rtx", path)


def test_the_real_packages_without_a_gpu_give_a_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from sdpack.engines.detect import gpus

    if gpus():
        pytest.skip("this machine has a GPU")
    path = tmp_path / "model.plan"
    path.write_bytes(b"plan")
    with pytest.raises(EngineError, match=r"cudaMemGetInfo failed.*sdpack doctor"):
        load("tensorrt_rtx", path)
