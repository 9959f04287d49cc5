"""A decoder in two graphs, and the tiles the second one works on: names, numbers and sides."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

STEM_FILE, TAIL_FILE = "stem.onnx", "tail.onnx"
LATENTS, PICTURES = "latent_sample", "sample"
FEATURES, CORE, GIVEN, SHARED, FOUND = "features", "core", "given", "shared", "found"


@dataclass(frozen=True)
class Split:
    """What is to be known of a decoder's two graphs to run them.

    Attributes:
        channels: of the features.
        factor: features a side of a latent pixel.
        halo: features beyond a tile's border that reach into it.
        norms, groups: normalizations of the tail, and groups of channels of each.
    """

    channels: int
    factor: int
    halo: int
    norms: int
    groups: int

    def side(self, latents: int, tile: int) -> int:
        """Features a side of the tiles that latents of this length are decoded in."""
        return side_of(self.factor * latents, self.factor * tile, self.halo)


@dataclass(frozen=True)
class Span:
    """A tile along one side: where it begins, and which part of it is its own."""

    start: int
    begin: int
    end: int


def side_of(length: int, tile: int, halo: int) -> int:
    """The side of equal tiles that cover `length` in as few as have at most `tile` of their own.

    Two neighbours share at least `halo` on both sides of the border between them.
    """
    count = math.ceil(length / tile)
    return min(length, math.ceil((length + 2 * halo * (count - 1)) / count))


def spans(length: int, tile: int, halo: int) -> list[Span]:
    """The tiles along a side; their own parts cover it, each pixel once."""
    side = side_of(length, tile, halo)
    count = math.ceil((length - 2 * halo) / (side - 2 * halo)) if side < length else 1
    starts = [number * (length - side) // max(1, count - 1) for number in range(count)]
    borders = [(one + side + two) // 2 for one, two in itertools.pairwise(starts)]
    begins, ends = [0, *borders], [*borders, length]
    return [Span(*each) for each in zip(starts, begins, ends, strict=True)]
