from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from sdpack.runtime.exif import UNDEFINED, exif_bytes

from tests.sdpack.runtime.webui_reader import read_exif

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    TEXTS,
    st.none() | st.binary(min_size=1, max_size=9),
    st.sampled_from(["sdpack", "sd", "sdpack 0.1"]),
)
def test_pillow_reads_every_tag_back(comment: str, note: bytes | None, software: str) -> None:
    exif = Image.Exif()
    exif.load(exif_bytes(software, comment, note))
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    assert exif[ExifTags.Base.Software] == software
    assert inner[ExifTags.Base.ExifVersion] == b"0232"
    assert inner[ExifTags.Base.UserComment] == b"UNICODE\0" + comment.encode("utf-16-be")
    assert inner.get(ExifTags.Base.MakerNote) == note


@given(TEXTS)
def test_a_comment_has_the_type_of_the_specification(comment: str) -> None:
    kind, value = read_exif(exif_bytes("sdpack", comment))[ExifTags.Base.UserComment]
    assert (kind, value[8:].decode("utf-16-be")) == (UNDEFINED, comment)


@pytest.mark.parametrize("software", ["a", "abc", "abcd", "abcde"])
def test_long_values_begin_at_even_bytes_and_short_ones_stand_in_their_entry(software: str) -> None:
    tiff = exif_bytes(software, "x")[6:]
    (tags,) = struct.unpack(">H", tiff[8:10])
    entries = [struct.unpack(">HHLL", tiff[10 + 12 * n : 22 + 12 * n]) for n in range(tags)]
    _, _, count, place = next(e for e in entries if e[0] == ExifTags.Base.Software)
    assert count == len(software) + 1
    if count > 4:
        assert place % 2 == 0
        assert tiff[place : place + count] == software.encode() + b"\0"
    else:
        assert struct.pack(">L", place) == (software.encode() + b"\0").ljust(4, b"\0")
