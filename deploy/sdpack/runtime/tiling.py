"""Decoding in tiles without seams, so that a large image needs little more memory than a tile.

A decoder consists of two graphs. The stem contains the attention and runs once, on the whole
picture, at low resolution. The tail runs tile by tile. Each tile includes a halo as wide as the
receptive field, and is normalized with the statistics of the whole picture. Those are unknown at
first: every tile returns its own statistics, the next round uses those of all tiles combined, and
the rounds end when the statistics no longer change. The first round makes those of the first
normalization exact, the second those of the second, and so on, so the rounds always end. Three are
usually close enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.domain.closing import Closing
from sdpack.domain.tiles import (
    CORE,
    FEATURES,
    FOUND,
    GIVEN,
    PICTURES,
    SHARED,
    Span,
    Split,
    side_of,
    spans,
)
from sdpack.domain.workload import WORKLOAD
from sdpack.engines.session import Arrays, Session


class TiledDecoder(Closing):
    """A decoder's stem and tail as one session: pictures of latents, in the memory of tiles.

    Args:
        head, tail: the two graphs.
        split: their numbers.
        tile: maximum side of a tile without its halo, in latent pixels.
        rounds: maximum number of rounds; by default as many as needed.
    """

    def __init__(
        self, stem: Session, tail: Session, split: Split, tile: int, rounds: int | None = None
    ) -> None:
        self.split = split
        self._stem, self._tail = stem, tail
        self._tile = tile * split.factor
        self._rounds = min(rounds or split.norms + 1, split.norms + 1)

    def run(self, inputs: Arrays) -> dict[str, Float32Array]:
        """{"sample": float32 (B, 3, s H, s W)} of {"latent_sample": float32 (B, C, H, W)}."""
        features = np.asarray(self._stem.run(inputs)[FEATURES], np.float32)
        tiles = list(_tiles(features.shape[-2:], self._tile, self.split.halo))
        given: Float32Array | None = None
        pictures: Float32Array | None = None
        for number in range(self._rounds):
            pictures, found = self._round(features, tiles, given, pictures)
            if given is not None and _moved(given, found) < WORKLOAD.tile_tolerance:
                break
            if len(tiles) == 1 or number == self._rounds - 1:
                break
            given = found
        assert pictures is not None
        return {PICTURES: pictures}

    def _round(
        self,
        features: Float32Array,
        tiles: Sequence[tuple[Span, Span]],
        given: Float32Array | None,
        pictures: Float32Array | None,
    ) -> tuple[Float32Array, Float32Array]:
        """The pictures, over those of the round before, and the statistics of all tiles."""
        rows, columns = features.shape[-2:]
        side = (
            side_of(rows, self._tile, self.split.halo),
            side_of(columns, self._tile, self.split.halo),
        )
        gathered = _Gathered()
        for down, across in tiles:
            part = features[
                ..., down.start : down.start + side[0], across.start : across.start + side[1]
            ]
            own = (
                slice(down.begin - down.start, down.end - down.start),
                slice(across.begin - across.start, across.end - across.start),
            )
            outputs = self._tail.run(self._asked(part, own, given))
            piece = outputs[PICTURES]
            scale = piece.shape[-1] // side[1]
            if pictures is None:
                shape = (*piece.shape[:2], scale * rows, scale * columns)
                pictures = np.empty(shape, np.float32)
            where = _scaled(slice(down.begin, down.end), slice(across.begin, across.end), scale)
            pictures[(..., *where)] = piece[(..., *_scaled(*own, scale))]
            if FOUND in outputs:
                gathered.add(outputs[FOUND], (down.end - down.begin) * (across.end - across.begin))
        assert pictures is not None
        return pictures, gathered.statistics()

    def _asked(
        self, part: Float32Array, own: tuple[slice, slice], given: Float32Array | None
    ) -> dict[str, Float32Array]:
        asked = {FEATURES: np.ascontiguousarray(part)}
        if not self.split.norms:
            return asked
        core = np.zeros((1, 1, *part.shape[-2:]), np.float32)
        core[(..., *own)] = 1
        nothing = np.zeros((len(part), self.split.norms, 2, self.split.groups), np.float32)
        shared = np.array([0 if given is None else 1], np.float32)
        return {**asked, CORE: core, GIVEN: nothing if given is None else given, SHARED: shared}

    def close(self) -> None:
        self._stem.close()
        self._tail.close()


def load_tiled(
    stem: Callable[[], Session], tail: Callable[[], Session], split: Split, tile: int
) -> TiledDecoder:
    """Load a decoder of two graphs; if one fails to load, the other is closed."""
    first = stem()
    try:
        return TiledDecoder(first, tail(), split, tile)
    except BaseException:
        first.close()
        raise


def _tiles(shape: Sequence[int], tile: int, halo: int) -> Iterator[tuple[Span, Span]]:
    rows, columns = (spans(length, tile, halo) for length in shape)
    return ((down, across) for down in rows for across in columns)


def _scaled(rows: slice, columns: slice, scale: int) -> tuple[slice, slice]:
    return (
        slice(scale * rows.start, scale * rows.stop),
        slice(scale * columns.start, scale * columns.stop),
    )


class _Gathered:
    """Combines means and variances of parts into those of the whole."""

    def __init__(self) -> None:
        self._pixels = 0
        self._first: Float64Array | float = 0.0
        self._second: Float64Array | float = 0.0

    def add(self, found: Float32Array, pixels: int) -> None:
        """Add the statistics of a part with this many pixels, (B, norms, 2, groups)."""
        mean, variance = found[:, :, 0].astype(np.float64), found[:, :, 1].astype(np.float64)
        self._pixels += pixels
        self._first = self._first + pixels * mean
        self._second = self._second + pixels * (variance + mean**2)

    def statistics(self) -> Float32Array:
        """The statistics of the whole, (B, norms, 2, groups)."""
        if not self._pixels:
            return np.zeros((0, 0, 2, 0), np.float32)
        mean = self._first / self._pixels
        variance = np.maximum(self._second / self._pixels - mean**2, 0)
        return np.stack([mean, variance], axis=2).astype(np.float32)


def _moved(given: Float32Array, found: Float32Array) -> float:
    """How far any statistic has moved, in standard deviations."""
    (mean, variance), (new_mean, new_variance) = (
        (each[:, :, 0], np.maximum(each[:, :, 1], np.finfo(np.float32).tiny))
        for each in (given, found)
    )
    levels = np.abs(new_mean - mean) / np.sqrt(variance)
    spreads = np.abs(np.log(new_variance / variance)) / 2
    return float(max(levels.max(), spreads.max()))
