"""Rounded weights on the disk: a graph's layers in one scheme, with what that costs each of them.

Rounding takes most of a variant's time, and variants share it: `int8` and `w8` store the same
weights, and a mixed variant is made of layers of uniform ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from sdpack.domain.arrays import Float32Array
from sdpack.progress import Step, unheard
from sdpack.quantization.archive import archive
from sdpack.quantization.layers import Layer
from sdpack.quantization.observe import Observed
from sdpack.quantization.rounding import (
    COUNTED_ROWS,
    Moment,
    Rounded,
    output_error,
    round_weight,
    sampled_rows,
)
from sdpack.quantization.schemes import Number, Scheme

Rounder = Callable[[Layer, Scheme], Rounded]

_ERRORS = "errors.json"
_WEIGHTS = "weights.npz"


@dataclass(frozen=True)
class RoundedWeights:
    """What `fill` wrote, in one folder or in several."""

    folders: tuple[Path, ...]

    @property
    def is_filled(self) -> bool:
        return all((folder / _ERRORS).is_file() for folder in self.folders)

    def rounded(self, layer: str) -> Rounded:
        """A layer's weight."""
        with np.load(self._holding[layer] / _WEIGHTS) as found:
            stored, scales = found[f"{layer}/numbers"], found[f"{layer}/scales"]
        if stored.dtype == np.uint8:
            stored = stored.view(ml_dtypes.float8_e4m3fn)
        block = stored.shape[1] // scales.shape[1] if scales.shape[1] > 1 else 0
        return Rounded(stored.astype(np.float32), scales, block)

    @cached_property
    def errors(self) -> dict[str, float]:
        """The energy that rounding adds to each layer's outputs, as a share of what they have.

        Of a table, that of the rows themselves.
        """
        return {name: error for found in self._errors.values() for name, error in found.items()}

    @cached_property
    def _errors(self) -> dict[Path, dict[str, float]]:
        return {folder: json.loads((folder / _ERRORS).read_text()) for folder in self.folders}

    @cached_property
    def _holding(self) -> dict[str, Path]:
        """The folder of each layer."""
        return {name: folder for folder, found in self._errors.items() for name in found}


def fill(
    layers_by_folder: Mapping[Path, Iterable[tuple[Layer, Scheme]]],
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
    step: Step = unheard,
) -> None:
    """Round layers and write them, one after the other; `step` is told of layers.

    What is known of a layer's inputs is read and inverted once for all its schemes.

    Args:
        layers_by_folder: folders, and what is to be written into each.
    """
    asked: dict[str, list[tuple[Path, Layer, Scheme]]] = {}
    for folder, chosen in layers_by_folder.items():
        for layer, scheme in chosen:
            asked.setdefault(layer.name, []).append((folder, layer, scheme))
    errors: dict[Path, dict[str, float]] = {folder: {} for folder in layers_by_folder}
    with ExitStack() as stack:
        puts = {
            folder: stack.enter_context(archive(folder / _WEIGHTS)) for folder in layers_by_folder
        }
        for place, (name, uses) in enumerate(asked.items()):
            step(place, len(asked))
            moments = observed.moments(name) if observed is not None else None
            matrix = uses[0][1].matrix()
            for folder, _, scheme in uses:
                made = round_weight(matrix, scheme, moments, scale_type)
                puts[folder](f"{name}/numbers", _bytes(made, scheme.number))
                puts[folder](f"{name}/scales", made.scales)
                errors[folder][name] = relative_error(matrix, made, moments)
    for folder, found in errors.items():
        (folder / _ERRORS).write_text(json.dumps(found, indent=1))


def sampled_errors(
    layer: Layer,
    schemes: Iterable[Scheme],
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
) -> dict[Scheme, float]:
    """The error each scheme would add to a layer, as `RoundedWeights.errors`, from some rows.

    Rows are rounded independently of each other, so that a few tell of all.
    """
    moments = observed.moments(layer.name) if observed is not None else None
    rows = sampled_rows(layer.matrix())
    return {
        scheme: relative_error(rows, round_weight(rows, scheme, moments, scale_type), moments)
        for scheme in schemes
    }


def relative_error(
    matrix: Float32Array, made: Rounded, moments: tuple[Moment, ...] | None
) -> float:
    """The energy that rounding adds to a layer's outputs, as a share of what they have.

    With moments it is that of COUNTED_ROWS of the outputs.
    """
    off = matrix - made.values
    if moments is None:
        whole = float((matrix.astype(np.float64) ** 2).sum())
        return float((off.astype(np.float64) ** 2).sum()) / whole if whole else 0.0
    whole = output_error(sampled_rows(matrix, COUNTED_ROWS), moments)
    return output_error(sampled_rows(off, COUNTED_ROWS), moments) / whole if whole else 0.0


def _bytes(made: Rounded, number: Number) -> NDArray[np.generic]:
    """What an archive can hold: float8 as its bytes, four bits as eight."""
    if number is Number.FP8:
        return made.numbers.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return made.numbers.astype(np.int8)


def rounder(
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
    step: Callable[[str], None] = lambda _: None,
) -> Rounder:
    """Rounds a layer when it is asked for; `step` is told its name."""

    def make(layer: Layer, scheme: Scheme) -> Rounded:
        step(layer.name)
        moments = observed.moments(layer.name) if observed is not None else None
        return round_weight(layer.matrix(), scheme, moments, scale_type)

    return make
