"""A decoder split into two graphs, and the tiles of the second: tensor names and tile sizes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

STEM_FILE, TAIL_FILE = "stem.onnx", "tail.onnx"
LATENTS, PICTURES = "latent_sample", "sample"
FEATURES, CORE, GIVEN, SHARED, FOUND = "features", "core", "given", "shared", "found"


@dataclass(frozen=True)
class Split:
    """The numbers needed to run a decoder's stem and tail.

    Attributes:
        channels: channels of the features that pass from stem to tail.
        factor: feature pixels per latent pixel, along one side.
        halo: feature pixels beyond a tile's border that influence the tile.
        norms, groups: number of normalizations in the tail, and channel groups in each.
    """

    channels: int
    factor: int
    halo: int
    norms: int
    groups: int

    def side(self, latents: int, tile: int) -> int:
        """Return the side of the tiles in feature pixels, for latents of this side."""
        return side_of(self.factor * latents, self.factor * tile, self.halo)

    def tiles(self, latents: int, tile: int) -> int:
        """Return the number of tiles along one axis, for latents of this side."""
        return len(spans(self.factor * latents, self.factor * tile, self.halo))


@dataclass(frozen=True)
class Span:
    """A tile along one axis: it starts at `start` and contributes pixels `begin` to `end`."""

    start: int
    begin: int
    end: int


def side_of(length: int, tile: int, halo: int) -> int:
    """Return the side of ceil(length / tile) equal tiles that cover `length`.

    Neighbours overlap by at least `halo` on both sides of the border between them.
    """
    count = math.ceil(length / tile)
    return min(length, math.ceil((length + 2 * halo * (count - 1)) / count))


def spans(length: int, tile: int, halo: int) -> list[Span]:
    """Return the tiles along one axis; their contributions cover each pixel exactly once."""
    side = side_of(length, tile, halo)
    count = math.ceil((length - 2 * halo) / (side - 2 * halo)) if side < length else 1
    starts = [number * (length - side) // max(1, count - 1) for number in range(count)]
    borders = [(one + side + two) // 2 for one, two in itertools.pairwise(starts)]
    begins, ends = [0, *borders], [*borders, length]
    return [Span(*each) for each in zip(starts, begins, ends, strict=True)]
