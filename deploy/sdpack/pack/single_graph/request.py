"""What `sdpack quantize` is asked for, and what it returns."""

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
    """What to make of one ONNX file.

    Attributes:
        calibration: .npz files, or folders of them.
        keep: patterns of names of layers to leave in the type they compute in.
        out: the graph to write; its weights go beside it into OUT.data.
    """

    path: Path
    recipe: Recipe
    out: Path
    calibration: tuple[Path, ...] = ()
    runtime: Runtime = Runtime.ONNXRUNTIME_CPU
    keep: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading the graph.

        Raises:
            InputError: the runtime saves nothing with the recipe, calibration inputs are missing,
                or the output cannot go where it should.
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
        if not self.out.parent.is_dir():
            raise InputError(
                f"{self.out.parent} is not a folder; create it, or choose another --out"
            )


@dataclass(frozen=True)
class QuantizeResult:
    """What was made of one ONNX file.

    Attributes:
        bytes_before, bytes_after: of the graph's files.
        layers: how many weights are stored in each scheme, "kept" for none; where only the
            arithmetic changes, how many layers compute in its type.
        fp32_nodes: nodes that compute in fp32 because fp16 overflows there.
        errors: by output, the energy of its change as a share of its own; empty without
            calibration inputs.
        unquantized: the weights that are not quantized, largest first.
        not_loaded: why the new graph was not loaded to try it; "" if it was.
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
    """The output beside the graph, named after the recipe."""
    words = re.sub("[:@]", "-", str(recipe))
    return path.parent / f"{path.stem}.{words}.onnx"
