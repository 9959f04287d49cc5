"""NVIDIA ModelOpt's quantizers, by their own defaults but for the block size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from modelopt.onnx.quantization import quantize
from onnxruntime.quantization import CalibrationDataReader

BLOCK = 32
MODES: dict[str, dict[str, Any]] = {
    # Its elimination of concats fails on denoisers' skip connections (KeyError in 0.47).
    "int8": {"quantize_mode": "int8", "high_precision_dtype": "fp32", "passes": []},
    "int4 RTN": {"quantize_mode": "int4", "calibration_method": "rtn_dq"},
    "int4 AWQ": {"quantize_mode": "int4", "calibration_method": "awq_lite"},
}


class ModelOptReader(CalibrationDataReader):
    """Batches from a folder, as often as they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.npz"))
        self.rewind()

    def rewind(self) -> None:
        self._left = iter(self._files)

    def get_next(self) -> dict[str, Any] | None:
        path = next(self._left, None)
        return None if path is None else dict(np.load(path))

    def get_first(self) -> dict[str, Any]:
        return dict(np.load(self._files[0]))


def make(recipe: str, graph: Path, batches: Path, out: Path) -> None:
    # It writes over its input: the graph has to be a copy.
    reader = ModelOptReader(batches)
    mode = MODES[recipe]
    blocks: dict[str, Any] = {}
    if mode["quantize_mode"] == "int4":
        # Its AWQ takes a Gemm's weight to lie as a MatMul's does, and stops where it does not.
        nodes = onnx.load(graph, load_external_data=False).graph.node
        gemms = [node.name for node in nodes if node.op_type == "Gemm"]
        blocks = {"block_size": BLOCK, "nodes_to_exclude": gemms}
    quantize(
        str(graph),
        calibration_data_reader=reader,
        calibration_eps=["cpu"],
        output_path=str(out),
        use_external_data_format=True,
        log_level="ERROR",
        **mode,
        **blocks,
    )
    onnx.load(out, load_external_data=False)


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    make(name, *map(Path, paths))
