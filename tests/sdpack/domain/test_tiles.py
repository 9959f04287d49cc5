import itertools

from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.tiles import Split, side_of, spans

LENGTHS, TILES, HALOS = st.integers(1, 400), st.integers(1, 80), st.integers(0, 12)


@given(LENGTHS, TILES, HALOS)
def test_own_parts_cover_a_side_each_pixel_once(length: int, tile: int, halo: int) -> None:
    found = spans(length, tile, halo)
    assert found[0].begin == 0
    assert found[-1].end == length
    assert all(one.end == two.begin for one, two in itertools.pairwise(found))
    assert all(span.begin < span.end for span in found)


@given(LENGTHS, TILES, HALOS)
def test_every_tile_sees_a_halo_beyond_its_own_part_or_the_border(
    length: int, tile: int, halo: int
) -> None:
    side = side_of(length, tile, halo)
    for span in spans(length, tile, halo):
        assert span.start >= 0
        assert span.start + side <= length
        assert span.begin - span.start >= halo or span.start == 0
        assert span.start + side - span.end >= halo or span.start + side == length


@given(LENGTHS, TILES, HALOS)
def test_no_tile_is_larger_than_asked_for(length: int, tile: int, halo: int) -> None:
    assert side_of(length, tile, halo) <= tile + 2 * halo
    assert side_of(length, length, halo) == length, "what fits into a tile is not cut"


def test_a_split_counts_tiles_in_latent_pixels() -> None:
    split = Split(channels=512, factor=2, halo=6, norms=13, groups=32)
    assert split.side(64, 32) == 70, "two tiles of 64 features, with six of the other's"
    assert split.side(96, 32) == 72
    assert split.side(32, 32) == 64
