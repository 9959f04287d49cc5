"""The speed of this machine, and of its GPU, measured once and recorded in the ledger."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from sdpack.domain.precision import Runtime
from sdpack.engines.detect import gpus
from sdpack.engines.onnxruntime import load
from sdpack.rewrite.onnx_file import MODEL_FILE, write
from sdpack.store.ledger import Ledger
from sdpack.version import versions

KIND = "machine speed"
CHANNELS, SIDE, KERNEL = 320, 32, 3
RUNS = 3
OPSET = 21


def machine_speed(ledger: Ledger, runtime: Runtime = Runtime.ONNXRUNTIME_CPU) -> float:
    """Return ONNX Runtime's multiply-accumulate operations per second on this machine, in fp32.

    It times one convolution of a UNet, and takes the fastest of several runs.

    Args:
        runtime: ONNX Runtime on the CPU or on the GPU.
    """
    inputs = {**here(runtime), "tools": versions(("onnxruntime", "numpy"))}
    known = ledger.find(KIND, inputs)
    if known is None:
        known = {"macs_per_s": _measured(runtime)}
        ledger.record(KIND, inputs, known)
    return float(known["macs_per_s"])


def here(runtime: Runtime) -> dict[str, Any]:
    """The properties of this machine that durations depend on.

    Args:
        runtime: what draws the images.
    """
    cpu = {"machine": platform.machine(), "cores": len(os.sched_getaffinity(0))}
    return {**cpu, "gpu": next((gpu.name for gpu in gpus()), "")} if runtime.on_gpu else cpu


def _measured(runtime: Runtime) -> float:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((CHANNELS, CHANNELS, KERNEL, KERNEL)).astype(np.float32)
    x = rng.standard_normal((1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / MODEL_FILE
        write(_convolution(weight), path)
        with load(path, runtime) as session:
            session.run({"x": x})
            seconds = min(_timed(lambda: session.run({"x": x})) for _ in range(RUNS))
    return weight.size * SIDE * SIDE / seconds


def _timed(run: Any) -> float:
    since = time.perf_counter()
    run()
    return time.perf_counter() - since


def _convolution(weight: np.ndarray[Any, np.dtype[np.float32]]) -> ir.Model:
    floats, shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape((1, CHANNELS, SIDE, SIDE))
    x = ir.Value(name="x", type=floats, shape=shape)
    y = ir.Value(name="y", type=floats, shape=shape)
    stored = ir.Value(name="w", const_value=ir.tensor(weight, name="w"))
    node = ir.node("Conv", [x, stored], {"pads": [KERNEL // 2] * 4}, outputs=[y], name="conv")
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=[stored], name="speed", opset_imports={"": OPSET}
    )
    return ir.Model(graph, ir_version=10)
