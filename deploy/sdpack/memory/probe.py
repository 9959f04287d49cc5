"""Memory use of one part in ONNX Runtime, measured in a process that runs only this part.

The process reports its resident set before the part is loaded, after it has run, and after it is
unloaded, and the peak in between. The predicted peak of a mix is computed from those of its parts;
`verify` measures the whole mix.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdpack.domain.precision import Runtime
from sdpack.domain.tiles import Split
from sdpack.engines import onnxruntime
from sdpack.engines.session import Session
from sdpack.errors import EngineError, GraphError
from sdpack.memory.predict import Footprint
from sdpack.runtime.tiling import TiledDecoder
from sdpack.runtime.tokenizer import PromptTokenizer

RUNS = 2
ROUNDS = 2  # rounds of tiles; later rounds need as much memory as the second
SHAPES = "shapes"
PAGE_BYTES = 4096
FLOAT_NAME = "FLOAT"
NUMPY = {  # by ONNX's names
    "BOOL": np.bool_,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "INT64": np.int64,
}

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of inputs, by name."""


@dataclass(frozen=True)
class Probe:
    """Resident bytes of the process.

    Attributes:
        before: before the part is loaded: the interpreter with the runtime's packages.
        after: after the part was loaded and has run.
        peak: the peak while it was loaded and run.
        left: after it is unloaded.
    """

    before: int
    after: int
    peak: int
    left: int

    @property
    def footprint(self) -> Footprint:
        """The part's footprint: the differences from the process without it."""
        loaded, residue = (max(0, resident - self.before) for resident in (self.after, self.left))
        return Footprint(loaded, max(0, self.peak - self.before - loaded), residue)


def probe(graph: Path, shapes: Shapes, threads: int | None = None) -> Probe:
    """Measure a graph at these input shapes.

    Raises:
        EngineError: the graph does not load or run.
    """
    types = input_types(graph)
    return _probe({"graph": str(graph), SHAPES: shapes, "types": types, "threads": threads})


def random_inputs(graph: Path, shapes: Shapes) -> dict[str, NDArray[Any]]:
    """Return random inputs of a graph, of these shapes and its own types.

    Raises:
        EngineError: the graph cannot be read.
    """
    types = input_types(graph)
    return {name: _input(shape, types.get(name, FLOAT_NAME)) for name, shape in shapes.items()}


def input_types(graph: Path) -> dict[str, str]:
    """Return the types of a graph's inputs, by name, as ONNX names them.

    Raises:
        EngineError: the graph cannot be read.
    """
    from sdpack.rewrite.onnx_file import read  # keeps it out of the measured process

    try:
        return {str(value.name): str(value.dtype) for value in read(graph).graph.inputs}
    except GraphError as cause:
        raise EngineError(f"{graph} cannot be measured: {cause}") from cause


def probe_tiled(
    stem: Path, tail: Path, split: Split, tile: int, shapes: Shapes, threads: int | None = None
) -> Probe:
    """Measure a tiled decoder on latents of these shapes.

    Raises:
        EngineError: a graph does not load or run.
    """
    tiled = {"tail": str(tail), "split": asdict(split), "tile": tile}
    return _probe({"graph": str(stem), "tiled": tiled, SHAPES: shapes, "threads": threads})


def process_bytes(tokenizer: Path, tokens: int | None = None, threads: int | None = None) -> int:
    """Measure `sdpack run` without any part: packages, tokenizer and ONNX Runtime.

    Args:
        tokenizer: folder of the tokenizer.
        tokens: number of tokens of a prompt, if its configuration does not limit it.
        threads: CPU threads.

    Raises:
        EngineError: it cannot be measured.
    """
    return _probe({"tokenizer": str(tokenizer), "tokens": tokens, "threads": threads}).peak


def _probe(request: Mapping[str, Any]) -> Probe:
    graph = request.get("graph", "the process")
    command = [sys.executable, "-m", __name__, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(f"{graph} cannot be measured: {message}")
    return Probe(**json.loads(done.stdout))


def _measure(request: Mapping[str, Any]) -> Probe:
    _load_packages()
    onnxruntime.steady_memory()
    if "tokenizer" in request:
        tokenizer = PromptTokenizer(Path(request["tokenizer"]), request["tokens"])
        tokenizer.ids(["a prompt"])
    _warm_up(request["threads"])
    if "graph" not in request:
        return Probe(_resident(), _resident(), _peak(), _resident())
    types = request.get("types", {})
    inputs = {
        name: _input(tuple(shape), types.get(name, FLOAT_NAME))
        for name, shape in request[SHAPES].items()
    }
    before = _resident()
    _reset_peak()
    session = _session(request)
    for _ in range(RUNS):
        session.run(inputs)
    after, peak = _resident(), _peak()
    session.close()
    return Probe(before, after, peak, _resident())


def _session(request: Mapping[str, Any]) -> Session:
    threads = request["threads"]
    session = onnxruntime.load(Path(request["graph"]), Runtime.ONNXRUNTIME_CPU, threads)
    if "tiled" not in request:
        return session
    tiled = request["tiled"]
    tail = onnxruntime.load(Path(tiled["tail"]), Runtime.ONNXRUNTIME_CPU, threads)
    return TiledDecoder(session, tail, Split(**tiled["split"]), tiled["tile"], rounds=ROUNDS)


def _load_packages() -> None:
    """Import the packages that `sdpack run` has loaded when it draws."""
    for name in ("click", "rich.console", "rich.table", "PIL.Image", "sdpack.runtime.bundle"):
        importlib.import_module(name)


def _warm_up(threads: int | None) -> None:
    """Run a tiny graph, so that ONNX Runtime's one-time setup does not count for the part."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "smallest.onnx"
        path.write_bytes(SMALLEST)
        with onnxruntime.load(path, threads=threads) as session:
            session.run({"x": np.zeros((1, 1), np.float32)})


# y = Relu(x) for x float32 (N, M), opset 21, serialized.
SMALLEST = bytes.fromhex(
    "080a12003a3f0a0c0a0178120179220452656c751201675a150a017812100a0e0801120a0a0312014e0a031201"
    "4d62150a017912100a0e0801120a0a0312014e0a0312014d42040a001015"
)


def _input(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    if dtype == FLOAT_NAME:
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, 2, shape).astype(NUMPY[dtype])


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * PAGE_BYTES


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise EngineError("/proc/self/status does not report the peak; measuring needs Linux")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(json.loads(sys.argv[1])))))
