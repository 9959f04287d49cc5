"""What one part takes in ONNX Runtime, measured in a process that runs it alone.

The kernel's figure of the largest resident set is reset between the steps, so that four numbers
come out: what the process takes before the part is there, what stays after it has run, the most it
took while it ran, and what is left when it is gone. The peak of a mix is then put together from
those of its parts; that is a prediction, and `verify` measures the whole.
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
ROUNDS = 2  # of tiles; the later ones take what the second does
SHAPES = "shapes"
PAGE_BYTES = 4096
FLOAT = "FLOAT"
NUMPY = {  # by ONNX's names
    "BOOL": np.bool_,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "INT64": np.int64,
}

Shapes = Mapping[str, tuple[int, ...]]
"""Of each input by name."""


@dataclass(frozen=True)
class Probe:
    """Resident bytes at four moments.

    Attributes:
        before: the interpreter with the runtime's packages, before the part.
        after: once the part is loaded and has run.
        peak: the most while it was loaded and run.
        left: once it is let go.
    """

    before: int
    after: int
    peak: int
    left: int

    @property
    def footprint(self) -> Footprint:
        """What stays while it is loaded, what more it takes while it runs, and what is left."""
        stays, left = (max(0, seen - self.before) for seen in (self.after, self.left))
        return Footprint(stays, max(0, self.peak - self.before - stays), left)


def probe(graph: Path, shapes: Shapes, threads: int | None = None) -> Probe:
    """Measure a graph at these input shapes.

    Raises:
        EngineError: the graph does not load or run.
    """
    from sdpack.rewrite.onnx_file import read  # not in the process that is measured

    try:
        types = {value.name: str(value.dtype) for value in read(graph).graph.inputs}
    except GraphError as cause:
        raise EngineError(f"{graph} cannot be measured: {cause}") from cause
    whole = {"graph": str(graph), SHAPES: shapes, "types": types, "threads": threads}
    return _probe(whole)


def probe_tiled(
    stem: Path, tail: Path, split: Split, tile: int, shapes: Shapes, threads: int | None = None
) -> Probe:
    """Measure a decoder that works in tiles, on latents of these shapes.

    Raises:
        EngineError: a graph does not load or run.
    """
    tiled = {"tail": str(tail), "split": asdict(split), "tile": tile}
    return _probe({"graph": str(stem), "tiled": tiled, SHAPES: shapes, "threads": threads})


def process_bytes(tokenizer: Path, threads: int | None = None) -> int:
    """What `sdpack run` takes before any part is there: packages, tokenizer, ONNX Runtime.

    Raises:
        EngineError: it cannot be measured.
    """
    return _probe({"tokenizer": str(tokenizer), "threads": threads}).peak


def _probe(request: Mapping[str, Any]) -> Probe:
    graph = request.get("graph", "the process")
    command = [sys.executable, "-m", __name__, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EngineError(f"{graph} cannot be measured: {said}")
    return Probe(**json.loads(done.stdout))


def _measure(request: Mapping[str, Any]) -> Probe:
    _load_packages()
    onnxruntime.steady_memory()
    if "tokenizer" in request:
        tokenizer = PromptTokenizer(Path(request["tokenizer"]))
        tokenizer.ids(["a prompt"])
    _warm_up(request["threads"])
    if "graph" not in request:
        return Probe(_resident(), _resident(), _peak(), _resident())
    types = request.get("types", {})
    inputs = {
        name: _input(tuple(shape), types.get(name, FLOAT))
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
    whole = onnxruntime.load(Path(request["graph"]), Runtime.ONNXRUNTIME_CPU, threads)
    if "tiled" not in request:
        return whole
    tiled = request["tiled"]
    tail = onnxruntime.load(Path(tiled["tail"]), Runtime.ONNXRUNTIME_CPU, threads)
    return TiledDecoder(whole, tail, Split(**tiled["split"]), tiled["tile"], rounds=ROUNDS)


def _load_packages() -> None:
    """What `sdpack run` has loaded by the time it draws."""
    for name in ("click", "rich.console", "rich.table", "PIL.Image", "sdpack.runtime.bundle"):
        importlib.import_module(name)


def _warm_up(threads: int | None) -> None:
    """Run the smallest graph, so that what ONNX Runtime sets up once is not the part's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "smallest.onnx"
        path.write_bytes(SMALLEST)
        with onnxruntime.load(path, threads=threads) as session:
            session.run({"x": np.zeros((1, 1), np.float32)})


# y = Relu(x) for x float32 (N, M), opset 21, as onnx serializes it.
SMALLEST = bytes.fromhex(
    "080a12003a3f0a0c0a0178120179220452656c751201675a150a017812100a0e0801120a0a0312014e0a031201"
    "4d62150a017912100a0e0801120a0a0312014e0a0312014d42040a001015"
)


def _input(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    if dtype == FLOAT:
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
