import numpy as np
from sdpack.pack.selection.mix_evaluator import _chunks, sheet


def test_chunks_end_at_multiples_of_their_size_wherever_the_prompts_start() -> None:
    assert [len(c) for c in _chunks(range(16, 64))] == [16, 16, 16]
    assert _chunks(range(10, 20)) == [list(range(10, 16)), list(range(16, 20))]
    assert _chunks([]) == []
    assert [n for c in _chunks(range(100)) for n in c] == list(range(100))


def test_a_sheet_holds_every_image_whole() -> None:
    images = np.random.default_rng(0).integers(0, 250, (7, 6, 8, 3)).astype(np.uint8)
    whole = sheet(images, columns=3, gap=2)
    assert whole.shape == (3 * 8 + 2, 3 * 10 + 2, 3)
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        top, left = 2 + 8 * row, 2 + 10 * column
        assert np.array_equal(whole[top : top + 6, left : left + 8], image)
    assert (whole[-9:, 12:] == 255).all()
