from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from sdpack.errors import MissingPackageError
from sdpack.evaluate import text_reading
from sdpack.evaluate.text_reading import TextReading, rapid_ocr, readability


def sign(text: str) -> np.ndarray:
    """A sign with a text: uint8 (256, 256, 3)."""
    image = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((20, 80, 236, 170), fill="#226644")
    font = ImageFont.load_default(36)
    pen.text((128, 125), text, "white", font, anchor="mm")
    return np.asarray(image)


def scores(images: list[np.ndarray], prompts: list[str], wanted: dict[str, str]) -> np.ndarray:
    return TextReading(wanted).scores(np.stack(images), prompts)


def test_a_text_is_read_in_an_image_and_a_wrong_one_scores_less() -> None:
    """With the package's own weights."""
    prompts = ["a sign that reads BAKERY", "a sign that says LIBRARY", "a green sign"]
    wanted = {prompts[0]: "BAKERY", prompts[1]: "LIBRARY"}
    right = scores([sign("BAKERY"), sign("LIBRARY"), sign("")], prompts, wanted)
    assert right == pytest.approx([1, 1, 0])
    wrong = scores([sign("BEKARY"), sign("HARBOUR"), sign("")], prompts, wanted)
    assert 0.4 < wrong[0] < 0.9
    assert wrong[1] < 0.5


def test_nothing_is_read_on_a_plain_image() -> None:
    assert rapid_ocr()(np.full((64, 64, 3), 200, np.uint8)) == ""


@pytest.mark.parametrize(
    ("read", "wanted", "score"),
    [
        ("bakery", "BAKERY", 1),
        ("ba ke\nry", "BAKERY", 1),
        ("bakary", "BAKERY", 5 / 6),
        ("", "BAKERY", 0),
        ("something else entirely", "CAT", 0),
    ],
)
def test_readability_is_one_minus_the_character_error_rate(
    read: str, wanted: str, score: float
) -> None:
    assert readability(read, wanted) == pytest.approx(score)


@given(st.text("abcdef", min_size=1, max_size=12), st.text("abcdef", max_size=12))
def test_readability_is_a_share(wanted: str, read: str) -> None:
    assert 0 <= readability(read, wanted) <= 1
    assert readability(wanted, wanted) == 1


def test_scores_depend_on_the_wanted_texts_and_the_reader() -> None:
    one, other = TextReading({"a": "A"}), TextReading({"a": "B"})
    assert one.content == TextReading({"a": "A"}).content != other.content


def test_without_the_package_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reading, "PACKAGE", "not-installed-here")
    with pytest.raises(MissingPackageError, match=r"sdpack\[ocr\]"):
        _ = TextReading({}).content
