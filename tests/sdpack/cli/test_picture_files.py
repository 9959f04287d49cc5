from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.cli.picture_files import format_of, picture_paths, unwritable, write_picture
from sdpack.errors import PromptError, StoreError
from sdpack.runtime.pictures import Encoding


def names(out: Path, pictures: int) -> list[str]:
    return [path.name for path in islice(picture_paths(out, pictures), pictures)]


@given(taken=st.sets(st.integers(1, 99)), pictures=st.integers(2, 4))
def test_numbers_go_on_after_the_highest_there_is(
    tmp_path_factory: pytest.TempPathFactory, taken: set[int], pictures: int
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    for number in taken:
        (folder / f"a-{number}.png").touch()
    first = max(taken, default=0) + 1
    wanted = [f"a-{number}.png" for number in range(first, first + pictures)]
    assert names(folder / "a.png", pictures) == wanted


def test_one_picture_has_the_name_it_was_given_and_several_are_numbered(tmp_path: Path) -> None:
    assert names(tmp_path / "a.webp", 1) == ["a.webp"]
    assert names(tmp_path / "a.webp", 2) == ["a-1.webp", "a-2.webp"]
    assert names(tmp_path, 2) == names(tmp_path / "new", 2) == ["1.png", "2.png"]
    assert (tmp_path / "new").is_dir()


def test_a_suffix_of_no_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"written as \.png, .*, not \.bmp"):
        picture_paths(tmp_path / "a.bmp", 1)
    (tmp_path / "b.bmp").mkdir()
    assert names(tmp_path / "b.bmp", 1) == ["1.png"]


@pytest.mark.parametrize(
    ("name", "encoding"), [("a.png", Encoding.PNG), ("a.JPG", Encoding.JPEG), ("a.webp", "webp")]
)
def test_the_name_says_the_format(name: str, encoding: Encoding) -> None:
    assert format_of(Path(name)).encoding == encoding


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", b"a picture")
    assert (tmp_path / "a.png").read_bytes() == b"a picture"
    with pytest.raises(StoreError, match=r"a\.png/b\.png cannot be written .*; choose --out"):
        write_picture(tmp_path / "a.png" / "b.png", b"")
    assert "(odd)" in str(unwritable(tmp_path, OSError("odd")))
