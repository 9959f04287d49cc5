import numpy as np
from sdpack.pack.selection.mix_evaluator import sheet


def test_a_sheet_holds_every_image_whole() -> None:
    images = np.random.default_rng(0).integers(0, 250, (7, 6, 8, 3)).astype(np.uint8)
    whole = sheet(images, columns=3, gap=2)
    assert whole.shape == (3 * 8 + 2, 3 * 10 + 2, 3)
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        top, left = 2 + 8 * row, 2 + 10 * column
        assert np.array_equal(whole[top : top + 6, left : left + 8], image)
    assert (whole[-9:, 12:] == 255).all()
