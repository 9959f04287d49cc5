"""Statistics of the inputs of layers: ranges, second moments, and the noise of int8 inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.errors import QuantizationError
from sdpack.quantization.clipping import Counts, best_threshold, bins, histogram, mean_square
from sdpack.quantization.layers import Layer
from sdpack.quantization.moment_runs import column_runs
from sdpack.quantization.rounding import Moment, moment_of, output_error, sampled_rows

OBSERVED_ROWS = 4096  # of a layer's inputs that enter its moments, from one batch


@dataclass
class InputStatistics:
    """Statistics of the inputs of layers that are alike, accumulated over batches."""

    layers: Sequence[Layer]
    counts: Counts = field(default_factory=lambda: np.zeros(bins()))
    largest: float = 0.0
    rows: int = 0
    finite: bool = True
    _grams: list[Float64Array] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        """The first layer."""
        return self.layers[0]

    @property
    def seen_as(self) -> list[str]:
        """Names of the inputs."""
        return [str(value.name) for value in self.layer.inputs]

    def add(self, batch: Mapping[str, NDArray[Any]]) -> None:
        """Add one batch of the layer's inputs, by name."""
        for node in self.layer.nodes:
            source = node.inputs[0]
            assert source is not None
            values = batch[str(source.name)].astype(np.float32, copy=False)
            if not np.isfinite(values).all():
                self.finite = False
                return
            self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
            self.counts += histogram(values)
            rows = rows_of(node, values)
            if rows is not None:
                self._count_moments(rows)

    def _count_moments(self, rows: Float32Array) -> None:
        for number, (start, stop) in enumerate(column_runs(self.layer)):
            part = rows[:, start:stop]
            with np.errstate(over="ignore", invalid="ignore"):
                gram = (part.T @ part).astype(np.float64)
            if number == len(self._grams):
                self._grams.append(gram)
            else:
                self._grams[number] += gram
        self.rows += len(rows)

    @cached_property
    def moments(self) -> list[Moment]:
        """Return the moments over all batches; none if squares of inputs overflowed."""
        if not all(np.isfinite(gram.diagonal()).all() for gram in self._grams):
            return []
        return [moment_of(gram, self.rows) for gram in self._grams]

    @cached_property
    def _threshold(self) -> tuple[float, float]:
        return best_threshold(self.counts, self.largest)

    @property
    def range(self) -> float:
        """The clipping threshold."""
        return self._threshold[0]

    def noise(self, layer: Layer) -> float:
        """Return the energy that int8 inputs add to the outputs, relative to the outputs' energy.

        The errors of different inputs are assumed to be uncorrelated; without moments, the inputs
        are, too.
        """
        error = self._threshold[1]
        rows = sampled_rows(layer.matrix())
        squares = float((rows.astype(np.float64) ** 2).sum())
        moments = tuple(self.moments)
        energy = output_error(rows, moments) if moments else squares * mean_square(self.counts)
        return error * squares / energy if 0 < energy < math.inf else 0.0

    def refuse_infinite(self, path: Path) -> None:
        if not self.finite:
            raise QuantizationError(
                f"{path}: the input of {self.layer.name} is not finite on the calibration inputs; "
                "check the checkpoint and the inputs"
            )


def rows_of(node: ir.Node, values: Float32Array) -> Float32Array | None:
    """What one output of a layer is summed over: float32 (at most OBSERVED_ROWS, summed).

    For a convolution, these are the patches under the kernel, in the order of the flattened weight.
    Returns None for convolutions that are grouped, not two-dimensional, or padded by `auto_pad`.
    """
    if node.op_type != "Conv":
        flat = values.reshape(-1, values.shape[-1])
        return flat[_sample(len(flat))]
    weight = node.inputs[1]
    assert weight is not None
    tensor = weight.const_value
    assert tensor is not None
    kernel = tuple(tensor.shape.numpy())[2:]
    grouped = node.attributes.get_int("group", 1) != 1
    if grouped or len(kernel) != 2 or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    strides = _ints(node, "strides", (1, 1))
    dilations = _ints(node, "dilations", (1, 1))
    top, left, bottom, right = _ints(node, "pads", (0, 0, 0, 0))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    height, width = windows.shape[2:4]
    chosen = _sample(len(values) * height * width)
    image, place = np.divmod(chosen, height * width)
    row, column = np.divmod(place, width)
    return windows[image, :, row, column].reshape(len(chosen), -1)


def _sample(count: int) -> NDArray[np.intp]:
    """The indices of OBSERVED_ROWS of this many rows, always the same; all if there are fewer."""
    if count <= OBSERVED_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, OBSERVED_ROWS, replace=False))


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints(name, default) or default)
