"""Sessions of ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import gc
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sdpack.domain.closing import Closing
from sdpack.domain.precision import Runtime
from sdpack.engines.session import Arrays
from sdpack.errors import EngineError, InputError, MissingPackageError

PROVIDERS = {
    Runtime.ONNXRUNTIME_CPU: "CPUExecutionProvider",
    Runtime.ONNXRUNTIME_CUDA: "CUDAExecutionProvider",
}
ERRORS_ONLY = 3
FLOAT_ACCURACY = "1"
ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1  # parameters of glibc's mallopt
OWN_PAGES_FROM_BYTES = 128 * 2**10
MOST_BYTES = 32 * 2**20  # maximum that mallopt accepts for MMAP_THRESHOLD
NEVER = 2**31 - 1
LARGE_BYTES = 2**28  # of a graph and its weights
SHARED_DATA = "model.onnx.data"  # where the forms of a graph keep the weights they share
# By default a GPU's arena grows to the next power of two (it held 3.2 GiB of weights in 4.1), and
# every way to convolve is tried in the first run: it takes up to twice as long for later ones that
# are no faster.
ON_CUDA = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
THREADS_VARIABLE = "SDPACK_THREADS"
FULL_FP32 = {"use_tf32": "0"}  # TF32 rounds the inputs of products to 10 bits
SHRINK, ON_GPU = "memory.enable_memory_arena_shrinkage", "gpu:0"


class OrtSession(Closing):
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, session: Any, arena: Arena | None = None) -> None:
        self.path = path
        self._session = session
        self._arena = arena

    def run(self, inputs: Arrays, outputs: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
        """Return the outputs with these names, or all outputs."""
        if self._session is None:
            raise EngineError(f"{self.path} was closed; load it again")
        names = list(outputs) or [output.name for output in self._session.get_outputs()]
        options = None if self._arena is None else self._arena.options(inputs)
        try:
            values = self._session.run(names, dict(inputs), options)
        except Exception as cause:  # onnxruntime raises one class per status code, and ValueError
            raise EngineError(f"{self.path} failed to run: {_first_line(cause)}") from cause
        if self._arena is not None:
            self._arena.ran(inputs)
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        if self._session is not None:
            self._session = None
            give_back_freed_memory()


class Arena:
    """Decides when a GPU's memory arena is shrunk after a run.

    The first run with some shapes allocates its tensors one by one, later runs allocate one block
    for all. Without shrinking after the first run, the arena would hold both, and blocks for other
    shapes. On an H200, Stable Diffusion 1's decoder needs 1.8 GiB this way, 2.8 GiB without
    shrinking, and 4.2 GiB by default.

    Args:
        shrink: run options that shrink the arena.
        low_memory: shrink after every run, so that other parts can use the memory. Allocating it
            again costs 5 ms of a step's 38 ms on an H200, and 19 ms of a decoding's 38 ms.
    """

    def __init__(self, shrink: Any, low_memory: bool) -> None:
        self._shrink = shrink
        self._low_memory = low_memory
        self._last: tuple[tuple[int, ...], ...] | None = None

    def options(self, inputs: Arrays) -> Any:
        """Return the run options for these inputs, or None."""
        return None if self._shapes(inputs) == self._last and not self._low_memory else self._shrink

    def ran(self, inputs: Arrays) -> None:
        """Record a successful run with these inputs."""
        self._last = self._shapes(inputs)

    def _shapes(self, inputs: Arrays) -> tuple[tuple[int, ...], ...]:
        return tuple(inputs[name].shape for name in sorted(inputs))


def load(
    path: Path,
    runtime: Runtime = Runtime.ONNXRUNTIME_CPU,
    threads: int | None = None,
    emulate: bool = False,
    in_order: bool = False,
    low_memory: bool = False,
) -> OrtSession:
    """Load the graph at `path`.

    A CPU session has no memory arena: freed memory returns to the system, so that the peak depends
    only on the graph and not on earlier shapes. Large floating-point weights are not prepacked.
    Prepacking takes longer than reading them and needs a second copy, without any gain in speed
    (Stable Diffusion 1's UNet loads in 6 s instead of 13 s, and needs 2.4 GiB instead of 3.3 GiB).

    Args:
        path: the ONNX file.
        runtime: one of `PROVIDERS`.
        threads: number of CPU threads; by default $SDPACK_THREADS, or the number of cores this
            process may use.
        emulate: compute in floating point and round explicitly at quantized nodes, instead of with
            this machine's integer kernels. The results resemble another device's; speed and memory
            are those of an unquantized graph.
        in_order: run nodes in the file's order as far as possible, instead of branch by branch.
        low_memory: as in `Arena`; only for a GPU.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: the graph is damaged, or the provider is not available; ONNX Runtime itself
            would silently fall back to the CPU.
    """
    ort, provider = _package(runtime), PROVIDERS[runtime]
    options = _options(ort, path, threads, emulate, in_order)
    missing = (
        f"{path}: {provider} is not available here; `sdpack doctor` lists missing packages and "
        "how to install them"
    )
    if not offers(runtime):
        raise EngineError(missing)
    try:
        provided = (provider, _provider_options(runtime, emulate))
        session = ort.InferenceSession(path, options, providers=[provided])
    except Exception as cause:  # onnxruntime raises one class per status code
        raise EngineError(f"{path} cannot be loaded: {_first_line(cause)}") from cause
    if provider not in session.get_providers():
        raise EngineError(missing)
    return OrtSession(path, session, _arena(ort, low_memory) if runtime.on_gpu else None)


def _provider_options(runtime: Runtime, emulate: bool) -> Mapping[str, str]:
    if not runtime.on_gpu:
        return {}
    return {**ON_CUDA, **FULL_FP32} if emulate else ON_CUDA


def _options(ort: Any, path: Path, threads: int | None, emulate: bool, in_order: bool) -> Any:
    """The session options for a graph; see `load`."""
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads or default_threads()
    # By default a CPU rounds the inputs of block-wise quantized weights to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", FLOAT_ACCURACY)
    if _is_large_and_plain(path):
        options.add_session_config_entry("session.disable_prepacking", "1")
    if in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if emulate:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def default_threads() -> int:
    """The number of CPU threads to use: $SDPACK_THREADS, or the cores this process may use.

    Raises:
        InputError: the variable is not a positive whole number.
    """
    named = os.environ.get(THREADS_VARIABLE)
    if not named:
        return len(os.sched_getaffinity(0))
    if not named.isdecimal() or not int(named):
        raise InputError(f"{THREADS_VARIABLE} is {named!r}; give a positive whole number")
    return int(named)


def _arena(ort: Any, low_memory: bool) -> Arena:
    shrink = ort.RunOptions()
    shrink.add_run_config_entry(SHRINK, ON_GPU)
    return Arena(shrink, low_memory)


def _is_large_and_plain(path: Path) -> bool:
    """Whether a graph has large weights, none of which is quantized.

    Kernels for quantized weights are fast only with prepacked weights.
    """
    data = path.with_name(f"{path.name}.data")
    if not data.is_file():
        data = path.with_name(SHARED_DATA)
    if not data.is_file() or data.stat().st_size < LARGE_BYTES:
        return False
    return path.is_file() and b"DequantizeLinear" not in path.read_bytes()


def offers(runtime: Runtime) -> bool:
    """Whether the installed ONNX Runtime has the runtime's provider."""
    return PROVIDERS[runtime] in _package(runtime).get_available_providers()


def steady_memory() -> None:
    """Make glibc allocate every tensor on its own pages, which are returned when it is freed.

    Otherwise glibc keeps large blocks in growing heaps, and the peak of the same program varies by
    tens of MiB between runs. Allocating pages again costs time: a tenth for a large model, half for
    a small one. This applies to the whole process, and does nothing without glibc.
    """
    _tell_glibc({ARENA_MAX: 1, MMAP_THRESHOLD: OWN_PAGES_FROM_BYTES})


def keep_memory() -> None:
    """Make glibc keep freed memory for reuse, until `give_back_freed_memory` is called.

    This is the opposite of `steady_memory`.
    """
    _tell_glibc({ARENA_MAX: 1, MMAP_THRESHOLD: MOST_BYTES, TRIM_THRESHOLD: NEVER})


def _tell_glibc(options: Mapping[int, int]) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option, value in options.items():
            set_option(option, value)


def give_back_freed_memory() -> None:
    """Make glibc return freed memory to the system, so that other parts can use it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def trim_memory() -> None:
    """Free unreferenced graphs and the files they map, and return the memory to the system.

    Graphs contain reference cycles, so they stay in memory until the garbage collector runs.
    """
    gc.collect()
    give_back_freed_memory()


def make_room_for(graph_bytes: int) -> None:
    """Trim memory before work on a graph that needs much of it.

    Args:
        graph_bytes: total size of the graph's files.
    """
    if graph_bytes > LARGE_BYTES:
        trim_memory()


def _package(runtime: Runtime) -> Any:
    try:
        import onnxruntime
    except ImportError as cause:
        extra = "gpu" if runtime.on_gpu else "cpu"
        raise MissingPackageError("onnxruntime", extra, f"running on {runtime}") from cause
    if runtime.on_gpu:
        _load_cuda()
    return onnxruntime


@cache
def _load_cuda() -> None:
    """Load the CUDA and cuDNN libraries that pip installed; otherwise the system's are used."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints a line for each missing library
            onnxruntime.preload_dlls()


def _first_line(cause: Exception) -> str:
    return (str(cause) or type(cause).__name__).splitlines()[0]
