import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.runtime.tiling import _starts, decode_tiled

SCALE = 2


def enlarged(latents: np.ndarray) -> np.ndarray:
    """A decoder that looks at one latent pixel at a time."""
    return latents[:, :3].repeat(SCALE, -2).repeat(SCALE, -1)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 16), st.integers(0, 2**32 - 1))
def test_a_decoder_without_context_decodes_the_same_in_tiles(
    height: int, width: int, tile: int, seed: int
) -> None:
    latents = np.random.default_rng(seed).standard_normal((2, 4, height, width), np.float32)
    seen = decode_tiled(enlarged, latents, tile)
    assert np.allclose(seen, enlarged(latents), atol=1e-5)


@given(st.integers(1, 100), st.integers(1, 30))
def test_tiles_cover_everything_and_overlap(length: int, side: int) -> None:
    side = min(side, length)
    starts = list(_starts(length, side))
    covered = {i for start in starts for i in range(start, start + side)}
    assert covered == set(range(length))
    assert all(b - a <= side - side // 4 or side == 1 for a, b in itertools.pairwise(starts))


def test_no_tile_is_larger_than_asked_for() -> None:
    sizes = []

    def decode(latents: np.ndarray) -> np.ndarray:
        sizes.append(latents.shape[-2:])
        return enlarged(latents)

    decode_tiled(decode, np.zeros((1, 4, 20, 9), np.float32), 8)
    assert len(sizes) > 1
    assert max(max(size) for size in sizes) <= 8


def test_small_latents_are_decoded_at_once() -> None:
    calls = []
    decode_tiled(lambda x: calls.append(x) or enlarged(x), np.ones((1, 4, 8, 8), np.float32), 8)
    assert len(calls) == 1


@pytest.mark.parametrize("tile", [4, 5])
def test_tiles_fade_into_each_other(tile: int) -> None:
    """A decoder whose level differs from tile to tile leaves no step between neighbours."""
    levels = iter(range(100))

    def level(latents: np.ndarray) -> np.ndarray:
        return np.full_like(enlarged(latents), next(levels))

    row = decode_tiled(level, np.zeros((1, 4, tile, 8), np.float32), tile)[0, 0, 0]
    assert np.abs(np.diff(row)).max() < 1
