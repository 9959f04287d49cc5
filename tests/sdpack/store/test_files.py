from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from sdpack.store.files import explain_io, link, write_whole


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_file_is_copied_where_links_are_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    link(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "x"
    assert not (tmp_path / "c").samefile(tmp_path / "a")


def test_a_copy_that_fails_names_what_was_to_be_written() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "from", None, "to")
    assert explain_io(full, Path("folder")).startswith("to: no space left")


@pytest.mark.parametrize("out", ["file/a", "folder"])
def test_a_file_for_a_folder_and_the_reverse_are_said_to_be_that(out: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    path = tmp_path / out
    with pytest.raises(OSError) as caught:  # noqa: PT011
        path.write_text("")
    wrong = "a folder exists where a file" if out == "folder" else "a file exists where a folder"
    assert explain_io(caught.value, tmp_path) == f"{path}: {wrong} is needed; choose another path"
