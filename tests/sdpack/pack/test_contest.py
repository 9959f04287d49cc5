import numpy as np
from sdpack.estimate import Estimate
from sdpack.pack.contest import _chunks, lightest_as_near, sheet

KID = {0: Estimate(50, 40, 60), 1: Estimate(90, 80, 99), 2: Estimate(62, 55, 70)}


def test_a_tie_does_not_go_to_pictures_far_from_real_ones() -> None:
    assert lightest_as_near(0, [1, 2, 0], KID.__getitem__) == 2
    assert lightest_as_near(0, [2, 1, 0], KID.__getitem__) == 2
    assert lightest_as_near(0, [1, 0], KID.__getitem__) == 0
    assert lightest_as_near(1, [0, 1], KID.__getitem__) == 0


def test_prompts_are_cut_at_the_same_places_whoever_asks() -> None:
    assert [len(c) for c in _chunks(range(16, 64))] == [16, 16, 16]
    assert _chunks(range(10, 20)) == [list(range(10, 16)), list(range(16, 20))]
    assert _chunks([]) == []
    assert [n for c in _chunks(range(100)) for n in c] == list(range(100))


def test_a_sheet_holds_every_picture_whole() -> None:
    pictures = np.random.default_rng(0).integers(0, 250, (7, 6, 8, 3)).astype(np.uint8)
    whole = sheet(pictures, columns=3, gap=2)
    assert whole.shape == (3 * 8 + 2, 3 * 10 + 2, 3)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 3)
        top, left = 2 + 8 * row, 2 + 10 * column
        assert np.array_equal(whole[top : top + 6, left : left + 8], picture)
    assert (whole[-9:, 12:] == 255).all()
