"""Olive's quantization passes, by their own defaults but for block size and symmetry."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from olive.model import ONNXModelHandler
from olive.passes.olive_pass import create_pass_from_dict
from olive.passes.onnx.hqq_quantization import OnnxHqqQuantization
from olive.passes.onnx.kquant_quantization import OnnxKQuantQuantization
from olive.passes.onnx.rtn_quantization import OnnxBlockWiseRtnQuantization

BLOCK = 32
PASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "int4 RTN": (OnnxBlockWiseRtnQuantization, {"block_size": BLOCK, "is_symmetric": True}),
    "int4 HQQ": (OnnxHqqQuantization, {"block_size": BLOCK}),
    "int4 k-quant": (OnnxKQuantQuantization, {"block_size": BLOCK}),
}


def make(recipe: str, graph: Path, batches: Path, out: Path) -> None:
    del batches  # none of these looks at activations
    kind, config = PASSES[recipe]
    whole = {**config, "save_as_external_data": True, "all_tensors_to_one_file": True}
    made = create_pass_from_dict(kind, whole, disable_search=True)
    folder = out.parent / f"{out.stem}-olive"
    done = Path(made.run(ONNXModelHandler(str(graph)), str(folder)).model_path)
    for file in list(done.parent.iterdir()):
        shutil.move(file, out.parent / (out.name if file == done else file.name))


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    make(name, *map(Path, paths))
