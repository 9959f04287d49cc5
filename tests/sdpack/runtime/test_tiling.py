"""A tail that normalizes twice, in numpy, decoded in tiles and at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sdpack.domain.tiles import CORE, FEATURES, FOUND, GIVEN, LATENTS, PICTURES, SHARED, Split
from sdpack.errors import EngineError
from sdpack.runtime.tiling import TiledDecoder, load_tiled

SCALE, GROUPS = 2, 2
Floats = NDArray[np.float32]


class Fake:
    """A session that computes a function, and knows whether it was closed."""

    def __init__(self, function: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self.run = function
        self.seen: list[tuple[int, ...]] = []
        self.closed = False

    def close(self) -> None:
        self.closed = True


def stem() -> Fake:
    return Fake(lambda inputs: {FEATURES: inputs[LATENTS]})


def blurred(x: Floats) -> Floats:
    """Each pixel with its four neighbours, zeros around."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    return x + around + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]


def normalized(x: Floats, core: Floats, given: Floats | None) -> tuple[Floats, Floats]:
    """Group normalization with what is given, or with what is found in the core; and that."""
    apart = x.reshape(len(x), GROUPS, -1, *x.shape[-2:])
    inside = apart[..., core[0, 0] > 0]
    found = np.stack([inside.mean((2, 3)), inside.var((2, 3))], axis=1)
    mean, variance = (found if given is None else given).transpose(1, 0, 2)
    level, spread = (each[:, :, None, None, None] for each in (mean, np.sqrt(variance + 1e-5)))
    return ((apart - level) / spread).reshape(x.shape).astype(np.float32), found


def tail(norms: int = 2) -> Fake:
    """Blurs, normalizes, bends, and enlarges."""

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        session.seen.append(inputs[FEATURES].shape)
        x, found = inputs[FEATURES], []
        for number in range(norms):
            own = inputs[SHARED][0] == 0
            statistics = None if own else inputs[GIVEN][:, number]
            x, seen = normalized(blurred(x), inputs[CORE], statistics)
            x = np.tanh(x)
            found.append(seen)
        pictures = blurred(x)[:, :3].repeat(SCALE, -2).repeat(SCALE, -1)
        more = {FOUND: np.stack(found, axis=1).astype(np.float32)} if norms else {}
        return {PICTURES: pictures, **more}

    session = Fake(run)
    return session


def decoder(tile: int, norms: int = 2, rounds: int | None = None) -> tuple[TiledDecoder, Fake]:
    made = tail(norms)
    split = Split(channels=4, factor=1, halo=norms + 1, norms=norms, groups=GROUPS)
    return TiledDecoder(stem(), made, split, tile, rounds), made


def latents(height: int, width: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    slope = np.linspace(-2, 2, width, dtype=np.float32)
    return slope + rng.standard_normal((2, 4, height, width), np.float32)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 16), st.integers(0, 2**32 - 1))
def test_a_decoder_without_norms_decodes_exactly_the_same_in_tiles(
    height: int, width: int, tile: int, seed: int
) -> None:
    given = latents(height, width, seed)
    whole, tiled = (decoder(each, norms=0)[0].run({LATENTS: given}) for each in (1000, tile))
    assert np.array_equal(whole[PICTURES], tiled[PICTURES])


@given(st.integers(5, 40), st.integers(20, 40), st.integers(5, 16), st.integers(0, 2**32 - 1))
def test_rounds_end_at_what_the_whole_would_have_been(
    height: int, width: int, tile: int, seed: int
) -> None:
    given = latents(height, width, seed)
    whole = decoder(1000)[0].run({LATENTS: given})[PICTURES]
    first = decoder(tile, rounds=1)[0].run({LATENTS: given})[PICTURES]
    found = decoder(tile)[0].run({LATENTS: given})[PICTURES]
    assert np.abs(found - whole).max() < 0.06
    assert np.abs(found - whole).max() <= np.abs(first - whole).max()


def test_as_many_rounds_as_norms_and_one_make_it_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdpack.runtime.tiling.SETTLED", 0)
    given = latents(24, 40)
    whole = decoder(1000)[0].run({LATENTS: given})[PICTURES]
    errors = []
    for rounds in (1, 2, 3):
        found = decoder(8, rounds=rounds)[0].run({LATENTS: given})[PICTURES]
        errors.append(float(np.abs(found - whole).max()))
    assert min(errors[:2]) > 0.01
    assert errors[2] < 1e-5


def test_it_stops_when_nothing_moves_any_more() -> None:
    norms, tiles = 8, 2
    made, session = decoder(30, norms)
    made.run({LATENTS: np.tile(latents(30, 30), (1, 1, 1, 2))})
    rounds, left = divmod(len(session.seen), tiles)
    assert left == 0
    assert 2 <= rounds < norms + 1


def test_latents_no_larger_than_a_tile_are_decoded_once() -> None:
    made, session = decoder(16)
    made.run({LATENTS: latents(16, 12)})
    assert session.seen == [(2, 4, 16, 12)]


def test_all_tiles_are_of_one_shape() -> None:
    made, session = decoder(8)
    made.run({LATENTS: latents(20, 33)})
    assert len(set(session.seen)) == 1
    assert max(session.seen[0][-2:]) <= 8 + 2 * made.split.halo


def test_a_head_whose_tail_does_not_load_is_closed() -> None:
    def missing() -> Fake:
        raise EngineError("there is no such graph")

    first = stem()
    with pytest.raises(EngineError, match="no such graph"):
        load_tiled(lambda: first, missing, Split(4, 1, 3, 2, GROUPS), 8)
    assert first.closed


def test_both_graphs_are_closed() -> None:
    one, two = stem(), tail()
    with TiledDecoder(one, two, Split(4, 1, 3, 2, GROUPS), 8):
        assert not one.closed
    assert one.closed
    assert two.closed
