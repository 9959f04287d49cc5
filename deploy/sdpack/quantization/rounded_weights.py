"""Rounded weights on disk, with the output error of each layer.

Rounding takes most of the time to make a variant, so variants share its results: `int8` and `w8`
store the same weights, and a mixed variant consists of layers of uniform ones.
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
from sdpack.quantization.moment_runs import threads_for_layers
from sdpack.quantization.observe import Observed
from sdpack.quantization.rounding import (
    COUNTED_ROWS,
    Moment,
    Rounded,
    output_error,
    round_weight,
    row_blocks,
    sampled_places,
    sampled_rows,
)
from sdpack.quantization.schemes import Number, Scheme
from sdpack.quantization.threads import in_order, one_thread

Rounder = Callable[[Layer, Scheme], Rounded]

_ERRORS = "errors.json"
_WEIGHTS = "weights.npz"


@dataclass(frozen=True)
class RoundedWeights:
    """The rounded layers that `fill` wrote, in one or several folders."""

    folders: tuple[Path, ...]

    @property
    def is_filled(self) -> bool:
        return all((folder / _ERRORS).is_file() for folder in self.folders)

    def rounded(self, layer: str) -> Rounded:
        """Read a layer's rounded weight."""
        with np.load(self._folder_of[layer] / _WEIGHTS) as arrays:
            stored, scales = arrays[f"{layer}/numbers"], arrays[f"{layer}/scales"]
        if stored.dtype == np.uint8:
            stored = stored.view(ml_dtypes.float8_e4m3fn)
        block = stored.shape[1] // scales.shape[1] if scales.shape[1] > 1 else 0
        return Rounded(stored.astype(np.float32), scales, block)

    @cached_property
    def errors(self) -> dict[str, float]:
        """Energy that rounding adds to each layer's outputs, relative to the outputs' energy.

        For a table, the energy of its rows.
        """
        return {name: error for layers in self._errors.values() for name, error in layers.items()}

    @cached_property
    def _errors(self) -> dict[Path, dict[str, float]]:
        return {folder: json.loads((folder / _ERRORS).read_text()) for folder in self.folders}

    @cached_property
    def _folder_of(self) -> dict[str, Path]:
        """The folder of each layer."""
        return {name: folder for folder, layers in self._errors.items() for name in layers}


def fill(
    layers_by_folder: Mapping[Path, Iterable[tuple[Layer, Scheme]]],
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
    step: Step = unheard,
) -> None:
    """Round layers and write them; one for each thread is in memory, as far as it allows.

    A layer's moments are read and inverted once for all its schemes.

    Args:
        layers_by_folder: the layers to write into each folder, with their schemes.
        observed: statistics of the layers' inputs; None rounds to nearest.
        scale_type: dtype of the scales.
        step: called for each layer.
    """
    jobs: dict[str, list[tuple[Path, Layer, Scheme]]] = {}
    for folder, chosen in layers_by_folder.items():
        for layer, scheme in chosen:
            jobs.setdefault(layer.name, []).append((folder, layer, scheme))
    errors: dict[Path, dict[str, float]] = {folder: {} for folder in layers_by_folder}
    with ExitStack() as stack:
        puts = {
            folder: stack.enter_context(archive(folder / _WEIGHTS)) for folder in layers_by_folder
        }
        threads = threads_for_layers(uses[0][1] for uses in jobs.values())
        all_rounded = in_order(
            lambda uses: _rounded(uses, observed, scale_type), jobs.values(), threads
        )
        for place, (name, in_schemes) in enumerate(zip(jobs, all_rounded, strict=True)):
            step(place, len(jobs))
            for each in in_schemes:
                puts[each.folder](f"{name}/numbers", each.numbers)
                puts[each.folder](f"{name}/scales", each.scales)
                errors[each.folder][name] = each.error
    for folder, by_layer in errors.items():
        (folder / _ERRORS).write_text(json.dumps(by_layer, indent=1))


@dataclass(frozen=True)
class _RoundedLayer:
    """A layer in one scheme, as it is written into a folder."""

    folder: Path
    numbers: NDArray[np.generic]
    scales: NDArray[np.floating]
    error: float


def _rounded(
    uses: Iterable[tuple[Path, Layer, Scheme]],
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
) -> list[_RoundedLayer]:
    """Round one layer in several schemes."""
    (_, layer, _), *_ = uses
    moments = observed.moments(layer.name) if observed is not None else None
    matrix, found = layer.matrix(), []
    for folder, _, scheme in uses:
        rounded = round_weight(matrix, scheme, moments, scale_type)
        numbers, error = _bytes(rounded, scheme.number), relative_error(matrix, rounded, moments)
        found.append(_RoundedLayer(folder, numbers, rounded.scales, error))
    return found


def sampled_errors(
    layer: Layer,
    schemes: Iterable[Scheme],
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
) -> dict[Scheme, float]:
    """Estimate each scheme's error of a layer, as in `RoundedWeights.errors`, from a few rows.

    A few rows suffice because rows are rounded independently of each other.
    """
    moments = observed.moments(layer.name) if observed is not None else None
    rows = sampled_rows(layer.matrix())
    return {
        scheme: relative_error(rows, round_weight(rows, scheme, moments, scale_type), moments)
        for scheme in schemes
    }


@one_thread()
def relative_error(
    matrix: Float32Array, rounded: Rounded, moments: tuple[Moment, ...] | None
) -> float:
    """Return the energy that rounding adds to a layer's outputs, relative to the outputs' energy.

    With moments, it is computed from COUNTED_ROWS of the outputs.

    Args:
        matrix: the weight, float32 (outputs, summed).
        rounded: the rounded weight.
        moments: moments of the layer's inputs; None counts all inputs the same.
    """
    if moments is None:
        total = added = 0.0
        for rows in row_blocks(len(matrix)):
            total += _squares(matrix[rows])
            added += _squares(matrix[rows] - rounded.rows(rows).values)
        return added / total if total else 0.0
    places = sampled_places(len(matrix), COUNTED_ROWS)
    counted = matrix[places]
    total = output_error(counted, moments)
    error = counted - rounded.rows(places).values
    return output_error(error, moments) / total if total else 0.0


def _squares(values: Float32Array) -> float:
    return float((values.astype(np.float64) ** 2).sum())


def _bytes(rounded: Rounded, number: Number) -> NDArray[np.generic]:
    """Return the numbers in a type that .npz supports: float8 as uint8, four bits as int8."""
    if number is Number.FP8:
        return rounded.numbers.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return rounded.numbers.astype(np.int8)


def rounder(
    observed: Observed | None,
    scale_type: np.dtype[np.floating],
    step: Callable[[str], None] = lambda _: None,
) -> Rounder:
    """Return a function that rounds a layer; `step` is called with the layer's name."""

    def make(layer: Layer, scheme: Scheme) -> Rounded:
        step(layer.name)
        moments = observed.moments(layer.name) if observed is not None else None
        return round_weight(layer.matrix(), scheme, moments, scale_type)

    return make
