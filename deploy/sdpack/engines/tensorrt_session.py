"""Running a TensorRT plan, of TensorRT-RTX or classic TensorRT, on the GPU it was built for.

Scratch memory is allocated when a run begins and freed when it ends. Parts that run one after the
other therefore share it, as the memory prediction assumes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.closing import Closing
from sdpack.engines.session import Arrays
from sdpack.engines.tensorrt_builder import extra_of
from sdpack.errors import EngineError, MissingPackageError


class TensorRTSession(Closing):
    """A plan loaded on the GPU."""

    def __init__(self, path: Path, engine: Any, trt: Any, cuda: Any) -> None:
        self.path = path
        self._engine = engine
        self._trt = trt
        self._gpu = CudaCalls(cuda, path)
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = engine.create_execution_context(strategy)
        if self._context is None:
            raise EngineError(f"{path}: cannot create an execution context; free GPU memory")
        self._stream = self._gpu.call("cudaStreamCreate")

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if self._context is None:
            raise EngineError(f"{self.path} was closed; load it again")
        given = {name: self._prepared(name, inputs) for name in self._names("INPUT")}
        for name, array in given.items():
            if not self._context.set_input_shape(name, array.shape):
                raise EngineError(f"{self.path}: input {name} cannot have shape {array.shape}")
        outputs = {name: self._empty(name) for name in self._names("OUTPUT")}
        with self._gpu.memory() as take:
            scratch = self._context.update_device_memory_size_for_shapes()
            self._context.set_device_memory(take(scratch), scratch)
            for name, array in {**given, **outputs}.items():
                self._context.set_tensor_address(name, take(array.nbytes))
            for name, array in given.items():
                self._gpu.upload(array, self._context.get_tensor_address(name), self._stream)
            if not self._context.execute_async_v3(self._stream):
                raise EngineError(f"{self.path} failed to run; see the log for the reason")
            for name, array in outputs.items():
                self._gpu.download(self._context.get_tensor_address(name), array, self._stream)
            self._gpu.call("cudaStreamSynchronize", self._stream)
        return outputs

    def _names(self, mode: str) -> Iterator[str]:
        wanted = getattr(self._trt.TensorIOMode, mode)
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            if self._engine.get_tensor_mode(name) == wanted:
                yield name

    def _prepared(self, name: str, inputs: Arrays) -> NDArray[Any]:
        if name not in inputs:
            raise EngineError(f"{self.path}: input {name} is missing; it has {sorted(inputs)}")
        return np.ascontiguousarray(inputs[name], self._dtype(name))

    def _empty(self, name: str) -> NDArray[Any]:
        return np.empty(tuple(self._context.get_tensor_shape(name)), self._dtype(name))

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return dtype

    def close(self) -> None:
        if self._context is not None:
            self._gpu.call("cudaStreamDestroy", self._stream)
        self._context = self._engine = None


class CudaCalls:
    """The CUDA runtime calls of a session; an error code becomes an EngineError."""

    def __init__(self, cuda: Any, path: Path) -> None:
        self._cuda = cuda
        self._path = path

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a CUDA function that returns (error, result) or (error,), and return its result."""
        error, *result = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            _, words = self._cuda.cudaGetErrorString(error)
            said = words.decode() if isinstance(words, bytes) else words
            raise EngineError(f"{self._path}: {name} failed: {said}; see `sdpack doctor`")
        return result[0] if result else None

    @contextmanager
    def memory(self) -> Iterator[Any]:
        """Provide a function that allocates device memory; all of it is freed at the end."""
        taken: list[Any] = []

        def take(count: int) -> int:
            address = self.call("cudaMalloc", max(1, count))
            taken.append(address)
            return int(address)

        try:
            yield take
        finally:
            for address in taken:
                self.call("cudaFree", address)

    def upload(self, array: NDArray[Any], address: int, stream: Any) -> None:
        kinds = self._cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def download(self, address: int, array: NDArray[Any], stream: Any) -> None:
        kinds = self._cuda.cudaMemcpyKind
        kind = kinds.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)


def load(package: str, path: Path) -> TensorRTSession:
    """Load the plan at `path`.

    Args:
        package: "tensorrt_rtx" or "tensorrt", whichever built the plan.
        path: the plan.

    Raises:
        MissingPackageError: the package or cuda-bindings is not installed.
        EngineError: there is no usable GPU, the plan was built for another one, or it is damaged.
    """
    trt, cuda = _packages(package)
    try:
        plan = path.read_bytes()
    except OSError as cause:
        raise EngineError(f"{path} cannot be read ({cause.strerror}); build it again") from cause
    CudaCalls(cuda, path).call("cudaMemGetInfo")
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{path} cannot be loaded: it is damaged, or was built for another GPU or for "
            f"another version than {package} {trt.__version__}; build it again on this device"
        )
    return TensorRTSession(path, engine, trt, cuda)


def _packages(package: str) -> tuple[Any, Any]:
    try:
        return importlib.import_module(package), importlib.import_module("cuda.bindings.runtime")
    except ImportError as cause:
        raise MissingPackageError(
            f"{package} and cuda-bindings", extra_of(package), "running a TensorRT plan"
        ) from cause
