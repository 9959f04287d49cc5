from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sdpack.runtime.pictures import (
    Encoding,
    Format,
    PictureFileError,
    encode,
    encoding_of,
    read_texts,
)

from tests.sdpack.runtime.test_infotext import MADE
from tests.sdpack.runtime.webui_reader import read_exif

PICTURE = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
USER_COMMENT, MAKER_NOTE, SOFTWARE = 0x9286, 0x927C, 0x0131
UNDEFINED = 7  # the type the specification gives UserComment; piexif reads no other
PROMPTS = ["a cat", 'a cat,\n\x00 fat: "it"', "写实, ünïcödé \U0001f600"]


def opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_png_has_the_web_uis_text_and_its_own(prompt: str) -> None:
    made = replace(MADE, prompt=prompt)
    image = opened(encode(PICTURE, Format(), made))
    assert image.info["parameters"] == made.infotext()
    assert json.loads(image.info["sdpack"]) == made.to_json()
    np.testing.assert_array_equal(np.asarray(image), PICTURE)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("encoding", [Encoding.JPEG, Encoding.WEBP])
def test_lossy_formats_have_both_in_exif(encoding: Encoding, prompt: str) -> None:
    made = replace(MADE, prompt=prompt)
    image = opened(encode(PICTURE, Format(encoding), made))
    exif = image.info["exif"]
    tags = read_exif(exif if exif.startswith(b"Exif") else b"Exif\0\0" + exif)
    kind, comment = tags[USER_COMMENT]
    assert kind == UNDEFINED
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == made.infotext()
    label, _, own = tags[MAKER_NOTE][1].partition(b"\0")
    assert label == b"sdpack"
    assert json.loads(own) == made.to_json()
    assert tags[SOFTWARE][1].startswith(b"sdpack")
    assert dict(image.getexif().get_ifd(0x8769))[USER_COMMENT] == comment


@pytest.mark.parametrize("encoding", Encoding)
def test_what_was_written_is_read(encoding: Encoding) -> None:
    found = read_texts(encode(PICTURE, Format(encoding), MADE))
    assert found["parameters"] == MADE.infotext()
    assert json.loads(found["sdpack"]) == MADE.to_json()


@pytest.mark.parametrize(("length", "kept"), [(10_000, 2), (25_000, 1), (40_000, 0)])
def test_a_jpeg_keeps_what_its_exif_has_room_for(length: int, kept: int) -> None:
    """65,533 bytes: two a character in UserComment, one in MakerNote."""
    made = replace(MADE, prompt="x" * length)
    texts = read_texts(encode(PICTURE, Format(Encoding.JPEG), made))
    assert list(texts) == ["parameters", "sdpack"][:kept]
    assert len(read_texts(encode(PICTURE, Format(Encoding.WEBP), made))) == 2


def test_half_a_character_is_no_reason_to_lose_a_picture() -> None:
    made = replace(MADE, prompt="a \udcff cat")
    for encoding in Encoding:
        found = read_texts(encode(PICTURE, Format(encoding), made))
        assert found["parameters"].startswith("a ? cat\n")
        assert json.loads(found["sdpack"])["prompt"] == made.prompt


def test_a_picture_of_others_says_nothing() -> None:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "PNG")
    assert read_texts(file.getvalue()) == {}


def test_a_comment_in_ascii_is_read() -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[USER_COMMENT] = b"ASCII\0\0\0a cat"
    Image.fromarray(PICTURE).save(file, "JPEG", exif=exif)
    assert read_texts(file.getvalue())["parameters"] == "a cat"


@pytest.mark.parametrize("file", [b"", b"GIF89a", encode(PICTURE, Format(), MADE)[:30]])
def test_what_is_no_picture_is_told(file: bytes) -> None:
    with pytest.raises(PictureFileError, match=r"PNG, JPEG or WebP|damaged") as told:
        read_texts(file)
    assert "0x" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("a.png", Encoding.PNG),
        ("A.PNG", Encoding.PNG),
        ("a.b.jpg", Encoding.JPEG),
        ("a.JpEg", Encoding.JPEG),
        ("a.webp", Encoding.WEBP),
        ("a.bmp", None),
        ("a", None),
        (".png", None),
    ],
)
def test_a_suffix_names_a_format(name: str, encoding: Encoding | None) -> None:
    assert encoding_of(Path(name)) is encoding
