"""Rounding of weights that minimizes the error of a layer's output.

For inputs x with second moments M = E[x xT] and a weight error D (outputs, summed), the output
error is tr(D M DT).

    scales      for each block, one of a few candidates: that with the least sum of M_jj D_j^2
    rounding    column by column, in order of decreasing M_jj; later columns compensate for the
                error of each (Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate
                Post-Training Quantization for Generative Pre-trained Transformers", 2022). Then
                each column once more, given all others (Behdin et al., "QuantEase:
                Optimization-based Quantization for Language Models", 2023)

Without moments, all inputs count the same and weights are rounded to nearest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdpack.domain.arrays import Float32Array
from sdpack.quantization.schemes import Scheme
from sdpack.quantization.threads import one_thread

DAMPING = 0.01  # of the mean second moment, added to each: keeps moments of few inputs invertible
SHRUNK_TO = np.linspace(1.0, 0.5, 21)  # clipping tried, of the largest magnitude in a block
# Columns whose errors are passed on to all others at once, and to their neighbours.
MANY_COLUMNS, FEW_COLUMNS = 64, 8
SMALLEST_HALF = 256  # of a triangular matrix that is inverted in halves
SCALED_ROWS = 64  # scaled at once: they stay in the cache
COPIED_ROWS = 4096  # of a weight, copied at once: tables of language models have 150,000 or more
SAMPLED_ROWS = 64
COUNTED_ROWS = 256  # of a rounded weight, from which the error of its outputs is computed


@dataclass(frozen=True)
class Moment:
    """Second moments of a layer's inputs, for a run of columns.

    Attributes:
        lower: lower triangle of E[x xT], row by row, float32 (columns (columns + 1) / 2,).
    """

    lower: Float32Array

    @cached_property
    def matrix(self) -> Float32Array:
        """E[x xT], float32 (columns, columns)."""
        columns = (math.isqrt(8 * len(self.lower) + 1) - 1) // 2
        triangle = np.zeros((columns, columns), np.float32)
        start = 0
        for row in range(columns):
            triangle[row, : row + 1] = self.lower[start : start + row + 1]
            start += row + 1
        lower = torch.from_numpy(triangle)
        mirrored: Float32Array = (lower + lower.tril(-1).T).numpy()
        return mirrored

    @property
    def columns(self) -> int:
        return len(self.squares)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """Columns in order of decreasing second moment."""
        return np.argsort(-self.squares, kind="stable")

    @cached_property
    def damped(self) -> Float32Array:
        """The moments in that order, with the damping added to the diagonal."""
        second = self.matrix[np.ix_(self.order, self.order)]
        second[np.diag_indices_from(second)] += DAMPING * float(self.squares.mean())
        return second

    @cached_property
    def inverse_root(self) -> Float32Array:
        """The upper triangular U with UT U = M^-1, for the damped moments M.

        Its rows are the coefficients of the compensation. Cholesky on the reversed matrix gives
        M = R RT with R upper triangular; U = R^-1.
        """
        # PyTorch's, which does this several times as fast as what numpy and scipy come with.
        reversed_moments = torch.from_numpy(self.damped).flip(0, 1)
        lower, failed = torch.linalg.cholesky_ex(reversed_moments)
        if failed:
            lower = torch.linalg.cholesky(reversed_moments.double())
        root: Float32Array = _inverse(lower).flip(0, 1).float().numpy()
        return root

    @cached_property
    def squares(self) -> Float32Array:
        """E[x²], float32 (columns,)."""
        return np.ascontiguousarray(np.diag(self.matrix))


def _inverse(lower: Tensor) -> Tensor:
    """Invert a lower triangular matrix recursively by halves, mostly with matrix products."""
    half = len(lower) // 2
    inverse = torch.zeros_like(lower)
    if half < SMALLEST_HALF:
        identity = torch.eye(len(lower), dtype=lower.dtype)
        torch.linalg.solve_triangular(lower, identity, upper=False, out=inverse)
        return inverse
    inverse[:half, :half] = first = _inverse(lower[:half, :half])
    inverse[half:, half:] = second = _inverse(lower[half:, half:])
    inverse[half:, :half] = -(second @ (lower[half:, :half] @ first))
    return inverse


def moment_of(gram: NDArray[np.floating], count: int) -> Moment:
    """Return the moment of `count` inputs whose outer products sum to `gram`."""
    mean = (gram / max(count, 1)).astype(np.float32)
    return Moment(np.concatenate([row[: place + 1] for place, row in enumerate(mean)]))


@dataclass(frozen=True)
class Rounded:
    """A weight as it is stored.

    Attributes:
        numbers: values of the scheme's type as float32, (outputs, summed).
        scales: (outputs, blocks), in the layer's compute type.
        block: as in the scheme; 0 for one scale per row.
    """

    numbers: Float32Array
    scales: NDArray[np.floating]
    block: int

    @property
    def values(self) -> Float32Array:
        """The dequantized weight, float32 (outputs, summed)."""
        return self.numbers * _spread(self.scales.astype(np.float32), self.numbers.shape[1])

    def rows(self, chosen: slice | NDArray[np.intp]) -> Rounded:
        """Return some rows; rows are rounded independently of each other."""
        return Rounded(self.numbers[chosen], self.scales[chosen], self.block)


@one_thread()
def round_weight(
    matrix: Float32Array,
    scheme: Scheme,
    moments: tuple[Moment, ...] | None,
    scale_type: np.dtype[np.floating],
) -> Rounded:
    """Round a weight in a scheme.

    Args:
        matrix: the weight, float32 (outputs, summed).
        scheme: number format and block size.
        moments: moments of the layer's inputs for consecutive runs of columns, which are assumed to
            be uncorrelated; None rounds to nearest.
        scale_type: dtype of the scales.
    """
    weights = None if moments is None else np.concatenate([m.squares for m in moments])
    scales = _scales(matrix, scheme, weights, scale_type)
    numbers = np.empty_like(matrix)
    if moments is None:
        for rows in row_blocks(len(matrix)):
            steps = _spread(scales[rows].astype(np.float32), matrix.shape[1])
            numbers[rows] = scheme.number.rounded(matrix[rows] / steps)
        return Rounded(numbers, scales, scheme.block)
    steps = _spread(scales.astype(np.float32), matrix.shape[1])
    start = 0
    for moment in moments:
        run = slice(start, start + moment.columns)
        numbers[:, run] = _compensated(matrix[:, run], steps[:, run], moment, scheme)
        start = run.stop
    return Rounded(numbers, scales, scheme.block)


def row_blocks(count: int) -> Iterator[slice]:
    """Yield slices of so many rows that a copy of a large table's is no large copy."""
    for first, last in _cut(count, COPIED_ROWS):
        yield slice(first, last)


def sampled_places(count: int, most: int = SAMPLED_ROWS) -> NDArray[np.intp]:
    """Return the places of up to `most` evenly spaced rows of a weight with `count` rows."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.intp)


def sampled_rows(matrix: Float32Array, most: int = SAMPLED_ROWS) -> Float32Array:
    """Return up to `most` evenly spaced rows of a weight; rows are rounded independently."""
    return np.ascontiguousarray(matrix[sampled_places(len(matrix), most)])


@one_thread()
def output_error(error: Float32Array, moments: tuple[Moment, ...]) -> float:
    """Return tr(D M DT) of a weight error D (outputs, summed): the energy it adds to outputs."""
    total, start = 0.0, 0
    for moment in moments:
        part = error[:, start : start + moment.columns]
        total += float(np.einsum("ij,ij->", part @ moment.matrix, part, dtype=np.float64))
        start += moment.columns
    return max(total, 0.0)


def _scales(
    matrix: Float32Array,
    scheme: Scheme,
    weights: Float32Array | None,
    scale_type: np.dtype[np.floating],
) -> NDArray[np.floating]:
    """Return the scale of each block with the least weighted squared error, (outputs, blocks)."""
    outputs, summed = matrix.shape
    block = scheme.block or summed
    column_weights = np.ones(summed, np.float32) if weights is None else weights
    column_weights = column_weights.reshape(summed // block, block)
    blocks = matrix.reshape(outputs, summed // block, block)

    def best_scales(rows: Float32Array) -> NDArray[np.floating]:
        return _best_scales(rows, scheme, column_weights, scale_type)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        chunks = [blocks[first:last] for first, last in _cut(outputs, SCALED_ROWS)]
        return np.concatenate(list(pool.map(best_scales, chunks)))


def _best_scales(
    rows: Float32Array,
    scheme: Scheme,
    column_weights: Float32Array,
    scale_type: np.dtype[np.floating],
) -> NDArray[np.floating]:
    """Return the best scales of a few rows, (outputs, blocks).

    Args:
        rows: the weight in blocks, (outputs, blocks, block).
        scheme: number format.
        column_weights: weight of each column's squared error, (blocks, block).
        scale_type: dtype of the scales.
    """
    unclipped = np.abs(rows).max(axis=2) / scheme.number.largest
    least_error = np.full(unclipped.shape, np.inf, np.float32)
    best = np.ones(unclipped.shape, scale_type)
    for share in SHRUNK_TO:
        scales = _storable(unclipped * share, scale_type)
        step = scales.astype(np.float32)[..., None]
        # In place: these arrays take most of the memory and time of the search.
        squares = scheme.number.rounded(rows / step)
        squares *= step
        squares -= rows
        squares *= squares
        error = np.einsum("abc,bc->ab", squares, column_weights)
        is_better = error < least_error
        least_error = np.where(is_better, error, least_error)
        best = np.where(is_better, scales, best)
    return best


def _storable(scales: Float32Array, scale_type: np.dtype[np.floating]) -> NDArray[np.floating]:
    """Convert scales to the stored type, clipped to its range; a block of zeros gets 1."""
    limits = np.finfo(scale_type)
    stored = np.clip(scales, limits.tiny, limits.max).astype(scale_type)
    return np.where(scales == 0, scale_type.type(1), stored)


def _spread(scales: Float32Array, summed: int) -> Float32Array:
    """Repeat each scale over its block: float32 (outputs, summed)."""
    return np.repeat(scales, summed // scales.shape[1], axis=1)


def _compensated(
    matrix: Float32Array, steps: Float32Array, moment: Moment, scheme: Scheme
) -> Float32Array:
    """Round a run of columns, each of which compensates for the others' errors."""
    if not moment.squares.any():
        return scheme.number.rounded(matrix / steps)
    # Laid out by columns: all the numbers of one are next to each other.
    columns, step = (np.ascontiguousarray(m.T[moment.order]) for m in (matrix, steps))
    numbers = _forward(columns, step, moment.inverse_root, scheme)
    numbers = _once_more(columns, step, numbers, moment.damped, scheme)
    return numbers[np.argsort(moment.order)].T


def _forward(
    columns: Float32Array, step: Float32Array, root: Float32Array, scheme: Scheme
) -> Float32Array:
    """Round column by column; later columns compensate for each error: (summed, outputs)."""
    remaining, numbers, per_step = columns.copy(), np.empty_like(columns), 1 / step
    for start, stop in _cut(len(remaining), MANY_COLUMNS):
        errors = np.empty_like(remaining[start:stop])
        for first, last in _cut(stop, FEW_COLUMNS, start):
            for column in range(first, last):
                rounded = scheme.number.rounded(remaining[column] * per_step[column])
                numbers[column] = rounded
                error = (remaining[column] - rounded * step[column]) / root[column, column]
                errors[column - start] = error
                remaining[column + 1 : last] -= root[column, column + 1 : last, None] * error
            few_errors = errors[first - start : last - start]
            remaining[last:stop] -= root[first:last, last:stop].T @ few_errors
        remaining[stop:] -= root[start:stop, stop:].T @ errors
    return numbers


def _once_more(
    columns: Float32Array,
    step: Float32Array,
    numbers: Float32Array,
    second: Float32Array,
    scheme: Scheme,
) -> Float32Array:
    """Round every column again, optimally given all others: (summed, outputs)."""
    numbers = numbers.copy()
    pull = second @ (columns - numbers * step)
    per_step = 1 / (np.diag(second)[:, None] * step)
    for start, stop in _cut(len(columns), MANY_COLUMNS):
        changes = np.empty_like(columns[start:stop])
        for first, last in _cut(stop, FEW_COLUMNS, start):
            for column in range(first, last):
                optimum = numbers[column] + pull[column] * per_step[column]
                rounded = scheme.number.rounded(optimum)
                change = (rounded - numbers[column]) * step[column]
                numbers[column] = rounded
                changes[column - start] = change
                pull[column + 1 : last] -= second[column, column + 1 : last, None] * change
            few_changes = changes[first - start : last - start]
            pull[last:stop] -= second[first:last, last:stop].T @ few_changes
        pull[stop:] -= second[start:stop, stop:].T @ changes
    return numbers


def _cut(stop: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) in pieces of `size`."""
    for first in range(start, stop, size):
        yield first, min(first + size, stop)
