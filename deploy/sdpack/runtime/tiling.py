"""Decoding in overlapping tiles, so that a large picture needs no more memory than a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

OVERLAP = 4  # a quarter of a tile is shared with the next one

Floats = NDArray[np.float32]


def decode_tiled(decode: Callable[[Floats], Floats], latents: Floats, tile: int) -> Floats:
    """Pictures (B, 3, s H, s W) of latents (B, C, H, W), `tile` latent pixels a side at a time.

    Neighbouring tiles share a quarter of their side, over which one fades into the other.
    Latents no larger than a tile are decoded at once.
    """
    height, width = latents.shape[-2:]
    if max(height, width) <= tile:
        return decode(latents)
    side = (min(tile, height), min(tile, width))
    total: Floats | None = None
    weight: Floats | None = None
    scale = 0
    for top in _starts(height, side[0]):
        for left in _starts(width, side[1]):
            piece = decode(latents[..., top : top + side[0], left : left + side[1]])
            if total is None or weight is None:
                scale = piece.shape[-1] // side[1]
                total = np.zeros((*piece.shape[:2], scale * height, scale * width), np.float32)
                weight = np.zeros(total.shape[-2:], np.float32)
            fade = _fade(side[0], scale)[:, None] * _fade(side[1], scale)[None, :]
            rows = slice(scale * top, scale * (top + side[0]))
            columns = slice(scale * left, scale * (left + side[1]))
            total[..., rows, columns] += fade * piece
            weight[rows, columns] += fade
    assert total is not None
    assert weight is not None
    return total / weight


def _starts(length: int, side: int) -> Iterator[int]:
    """Where tiles of `side` begin so that they cover `length` and overlap by a quarter."""
    step = max(1, side - side // OVERLAP)
    start = 0
    while start + side < length:
        yield start
        start += step
    yield length - side


def _fade(side: int, scale: int) -> Floats:
    """Weights of a tile's pixels along one side: up over the overlap, flat, and down again."""
    ramp = max(1, scale * (side // OVERLAP))
    distance = np.arange(scale * side, dtype=np.float32) + 0.5
    return np.asarray(np.minimum(1, np.minimum(distance, distance[::-1]) / ramp), np.float32)
