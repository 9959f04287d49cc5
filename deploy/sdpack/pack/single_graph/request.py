"""The request and the result of `sdpack quantize`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdpack.documents.overwrite import check_spared
from sdpack.domain.precision import Runtime, kept_small
from sdpack.errors import InputError
from sdpack.pack.single_graph.recipe import Recipe
from sdpack.quantization.leftovers import Unquantized
from sdpack.rewrite.onnx_file import files_of


@dataclass(frozen=True)
class QuantizeRequest:
    """How to quantize one ONNX file.

    Attributes:
        calibration: .npz files, or folders of them.
        keep: patterns for the names of layers to leave unquantized.
        out: the graph to write; its weights are written to OUT.data.
    """

    path: Path
    recipe: Recipe
    out: Path
    calibration: tuple[Path, ...] = ()
    runtime: Runtime = Runtime.ONNXRUNTIME_CPU
    keep: tuple[str, ...] = ()

    def check(self) -> None:
        """Check everything that can be checked without reading the graph.

        Raises:
            InputError: the runtime saves no memory with the recipe, calibration inputs are missing,
                or the output would replace an input or has no folder.
        """
        recipe, runtime = self.recipe, self.runtime
        if not kept_small(runtime, recipe.precision):
            raise InputError(
                f"{runtime} saves no memory with {recipe}: it would unpack it; "
                "choose another --precision, or another --runtime"
            )
        if recipe.calibrated and not self.calibration:
            raise InputError(
                f"{recipe} needs real inputs for the graph; give --calibration FILE.npz"
            )
        if os.path.realpath(self.out) == os.path.realpath(self.path):
            raise InputError(f"{self.out} is the graph itself; choose another --out")
        read = [*files_of(self.path), *self.calibration]
        check_spared(read, [self.out, Path(f"{self.out}.data")])
        folder = self.out.parent
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; create it, or choose another --out")


@dataclass(frozen=True)
class QuantizeResult:
    """A quantized ONNX file.

    Attributes:
        bytes_before, bytes_after: the size of the graph's files.
        layers: the number of weights in each scheme, "kept" for those in none; if only the
            arithmetic changes, the number of layers that compute in its type.
        fp32_nodes: nodes that compute in fp32 because fp16 overflows there.
        errors: the relative squared error of each output; empty without calibration inputs.
        unquantized: the weights that are not quantized, largest first.
        not_loaded: why the new graph was not loaded as a check; "" if it was.
    """

    out: Path
    bytes_before: int
    bytes_after: int
    layers: Mapping[str, int]
    fp32_nodes: tuple[str, ...]
    errors: Mapping[str, float]
    unquantized: tuple[Unquantized, ...] = ()
    not_loaded: str = ""


def default_out(path: Path, recipe: Recipe) -> Path:
    """The default path of the output: beside the graph, named after the recipe."""
    words = re.sub("[:@]", "-", str(recipe))
    return path.parent / f"{path.stem}.{words}.onnx"
