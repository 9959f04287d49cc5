"""ONNX Runtime's quantizers, by their own defaults but for block size and symmetry."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

BLOCK = 32


class Reader(CalibrationDataReader):
    """Batches from a folder."""

    def __init__(self, folder: Path) -> None:
        self._batches: Iterator[Path] = iter(sorted(folder.glob("*.npz")))

    def get_next(self) -> dict[str, Any] | None:
        path = next(self._batches, None)
        return None if path is None else dict(np.load(path))


def int8(graph: Path, batches: Path, out: Path) -> None:
    quantize_static(
        str(graph),
        str(out),
        Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )


def weights_only(config: Any) -> Callable[[Path, Path, Path], None]:
    def make(graph: Path, batches: Path, out: Path) -> None:
        del batches  # none of these looks at activations
        given = {"block_size": BLOCK, "is_symmetric": True} if config is None else {}
        quantizer = MatMulNBitsQuantizer(onnx.load(graph), algo_config=config, **given)
        quantizer.process()
        quantizer.model.save_model_to_file(str(out), use_external_data_format=True)

    return make


RECIPES = {
    "int8": int8,
    "int4": weights_only(DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True)),
    "int4 HQQ": weights_only(HQQWeightOnlyQuantConfig(block_size=BLOCK)),
    "int4 k-quant": weights_only(KQuantWeightOnlyQuantConfig()),
}

if __name__ == "__main__":
    logging.disable(logging.WARNING)
    name, *paths = sys.argv[1:]
    RECIPES[name](*map(Path, paths))
