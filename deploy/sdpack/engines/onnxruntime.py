"""ONNX Runtime, on the CPU or on an NVIDIA GPU."""

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
from sdpack.errors import EngineError, MissingPackageError

PROVIDERS = {
    Runtime.ONNXRUNTIME_CPU: "CPUExecutionProvider",
    Runtime.ONNXRUNTIME_CUDA: "CUDAExecutionProvider",
}
ERRORS_ONLY = 3
FLOAT_ACCURACY = "1"
ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1  # of glibc's mallopt
OWN_PAGES_FROM_BYTES = 128 * 2**10
MOST_BYTES = 32 * 2**20  # that it takes for MMAP_THRESHOLD
NEVER = 2**31 - 1
LARGE_BYTES = 2**28  # of a graph and its weights
SHARED_DATA = "model.onnx.data"  # where the forms of a graph keep the weights they share
# By default a GPU's arena grows to the next power of two (it held 3.2 GiB of weights in 4.1), and
# every way to convolve is tried in the first run: it takes up to twice as long for later ones that
# are no faster.
ON_CUDA = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
SHRINK, ON_GPU = "memory.enable_memory_arena_shrinkage", "gpu:0"


class OrtSession(Closing):
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, session: Any, arena: Arena | None = None) -> None:
        self.path = path
        self._session = session
        self._arena = arena

    def run(self, inputs: Arrays, outputs: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
        """The outputs of these names, or all there are."""
        if self._session is None:
            raise EngineError(f"{self.path} was closed; load it again")
        names = list(outputs) or [output.name for output in self._session.get_outputs()]
        options = None if self._arena is None else self._arena.options(inputs)
        try:
            values = self._session.run(names, dict(inputs), options)
        except Exception as cause:  # onnxruntime raises a class a status code, and ValueError
            raise EngineError(f"{self.path} failed to run: {_first_line(cause)}") from cause
        if self._arena is not None:
            self._arena.ran(inputs)
        return dict(zip(names, values, strict=True))

    def close(self) -> None:
        if self._session is not None:
            self._session = None
            give_back_freed_memory()


class Arena:
    """When a GPU's arena hands back what a run has freed.

    The first run of a shape takes its tensors one by one, the next ones take one block for all of
    them: had the first not handed back what it took, both would be held, and blocks of other
    shapes besides. On an H200 the decoder of Stable Diffusion 1 took 1.8 GiB so, 2.8 with nothing
    handed back and 4.2 by default.

    Args:
        low_memory: hand it back after every run, so that the next part finds it. Taking it again
            took an H200 5 ms of a step's 38, and 19 of a decoding's 38.
    """

    def __init__(self, shrink: Any, low_memory: bool) -> None:
        self._shrink = shrink
        self._low_memory = low_memory
        self._last: tuple[tuple[int, ...], ...] | None = None

    def options(self, inputs: Arrays) -> Any:
        """What a run with these inputs is to be told; None: nothing."""
        return None if self._shapes(inputs) == self._last and not self._low_memory else self._shrink

    def ran(self, inputs: Arrays) -> None:
        """Say that a run with these inputs came to its end."""
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
    """A session for the graph at `path`.

    No memory arena on a CPU: what a run has freed goes back to the system, so that the peak is what
    the graph needs and not what earlier shapes needed. Large weights that are floating-point
    numbers are not laid out again: that takes longer than reading them, and a second copy, for no
    speed (a UNet of Stable Diffusion 1 loads in 6 s instead of 13, and holds 2.4 GiB instead of
    3.3).

    Args:
        emulate: compute in floating point and round where the graph says so, whatever the kernels
            for integers would do here: what another device draws, at the speed and the memory of
            a graph that is not quantized.
        in_order: run nodes in the order they have in the file as far as that goes, and not branch
            by branch.
        low_memory: as of `Arena`; only on a GPU.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: the graph is damaged, or the provider is not there; ONNX Runtime would
            otherwise fall back to the CPU without a word.
    """
    ort, provider = _package(runtime), PROVIDERS[runtime]
    options = _options(ort, path, threads, emulate, in_order)
    missing = (
        f"{path}: {provider} is not available here; `sdpack doctor` says what is missing and "
        "how to get it"
    )
    if not offers(runtime):
        raise EngineError(missing)
    try:
        provided = (provider, ON_CUDA if runtime.on_gpu else {})
        session = ort.InferenceSession(path, options, providers=[provided])
    except Exception as cause:  # onnxruntime raises a class a status code
        raise EngineError(f"{path} cannot be loaded: {_first_line(cause)}") from cause
    if provider not in session.get_providers():
        raise EngineError(missing)
    return OrtSession(path, session, _arena(ort, low_memory) if runtime.on_gpu else None)


def _options(ort: Any, path: Path, threads: int | None, emulate: bool, in_order: bool) -> Any:
    """The session options for a graph; see `load`."""
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # By default a CPU rounds the inputs of block-wise quantized weights to int8.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", FLOAT_ACCURACY)
    if _is_large_and_plain(path):
        options.add_session_config_entry("session.disable_prepacking", "1")
    if in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if emulate:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _arena(ort: Any, low_memory: bool) -> Arena:
    shrink = ort.RunOptions()
    shrink.add_run_config_entry(SHRINK, ON_GPU)
    return Arena(shrink, low_memory)


def _is_large_and_plain(path: Path) -> bool:
    """Whether a graph has much in its file of weights, and nothing stored in fewer bits.

    What multiplies by packed weights is quick only once it has laid them out.
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
    """Have glibc give every tensor pages of its own, handed back when it is freed.

    Otherwise it keeps large blocks in heaps it grows as it goes, and the peak of one and the same
    program differs by tens of MiB from run to run. Pages that are taken again cost time: a tenth
    for a large model, half for a small one. Holds for the process; without glibc nothing happens.
    """
    _tell_glibc({ARENA_MAX: 1, MMAP_THRESHOLD: OWN_PAGES_FROM_BYTES})


def keep_memory() -> None:
    """Have glibc keep what was freed for what is needed next, until it is asked to give it back.

    The contrary of `steady_memory`.
    """
    _tell_glibc({ARENA_MAX: 1, MMAP_THRESHOLD: MOST_BYTES, TRIM_THRESHOLD: NEVER})


def _tell_glibc(options: Mapping[int, int]) -> None:
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for option, value in options.items():
            set_option(option, value)


def give_back_freed_memory() -> None:
    """Ask glibc to hand freed memory back to the system, so that the next part finds it."""
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
        graph_bytes: of the graph's files.
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
    """Load CUDA's and cuDNN's libraries where pip put them; where it did not, the system's do."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(io.StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()


def _first_line(cause: Exception) -> str:
    return (str(cause) or type(cause).__name__).splitlines()[0]
