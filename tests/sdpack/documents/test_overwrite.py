from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sdpack.documents.bundle import write_bundle
from sdpack.documents.overwrite import check_spared
from sdpack.errors import InputError

from tests.sdpack.documents.test_bundle import fill, manifest


def the_same_path(file: Path) -> Path:
    return file


def a_symbolic_link(file: Path) -> Path:
    link = file.parent.parent / "link"
    link.symlink_to(file)
    return link


def a_hard_link(file: Path) -> Path:
    link = file.parent.parent / "second"
    os.link(file, link)
    return link


def a_relative_path(file: Path) -> Path:
    os.chdir(file.parent.parent)
    return Path(file.parent.name) / ".." / file.parent.name / file.name


def through_a_linked_folder(file: Path) -> Path:
    (file.parent.parent / "elsewhere").symlink_to(file.parent)
    return file.parent.parent / "elsewhere" / file.name


ALIASES = (the_same_path, a_symbolic_link, a_hard_link, a_relative_path, through_a_linked_folder)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # and back, whatever a test changes to
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"weights")
    return tmp_path / "model" / "weights"


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("of_the_folder", [False, True])
def test_a_file_that_is_read_is_not_written(
    alias: Callable[[Path], Path], of_the_folder: bool, source: Path
) -> None:
    target = alias(source)
    with pytest.raises(InputError, match="would be overwritten") as caught:
        check_spared([source.parent if of_the_folder else source], [target])
    assert str(target) in str(caught.value)


def test_another_spelling_is_the_same_file_where_the_file_system_ignores_case(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are told apart by what the file system says they are, never by their names."""
    other = source.with_name("WEIGHTS")
    if not other.exists():
        other.write_bytes(b"other")
        check_spared([source], [other])  # here they are two
        plain = os.stat

        def stat(path: object, *words: object, **more: object) -> os.stat_result:
            return plain(str(path).replace("WEIGHTS", "weights"))

        monkeypatch.setattr(os, "stat", stat)  # there they are one
    with pytest.raises(InputError, match="WEIGHTS would be overwritten"):
        check_spared([source], [other])


def test_a_folder_that_holds_what_is_read_is_not_replaced(source: Path) -> None:
    for folder in (source.parent, source.parent.parent):
        with pytest.raises(InputError, match="would be overwritten"):
            check_spared([source], [folder])
    linked = source.parent.parent / "linked"
    linked.symlink_to(source.parent)
    with pytest.raises(InputError, match="linked would be overwritten"):
        check_spared([source], [linked])


def test_what_is_new_or_of_no_concern_is_written(source: Path) -> None:
    other = source.parent.parent / "other"
    other.write_bytes(b"")
    new = source.parent / "new"
    check_spared([source, source.parent, source.with_name("gone")], [other, new])


def test_no_stray_file_is_written_into_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(), fill)
    (tmp_path / "linked").symlink_to(folder / "onnx")
    for stray in (folder / "1.png", folder / "onnx" / "unet" / "2.png", tmp_path / "linked" / "x"):
        with pytest.raises(InputError, match=f"stray file in the bundle {folder}"):
            check_spared([], [stray])
    check_spared([], [folder / "report.html", folder / "charts" / "memory.png", tmp_path / "x"])
    check_spared([], [folder])  # the whole bundle is replaced


def test_another_program_s_manifest_makes_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a page"}')
    check_spared([], [tmp_path / "1.png"])


def test_a_path_beside_a_bundle_may_lead_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "b"
    write_bundle(folder, manifest(), fill)
    check_spared([], [folder / ".." / "x.png"])
    monkeypatch.chdir(folder)
    check_spared([], [Path("../x.png")])
    with pytest.raises(InputError, match="stray file"):
        check_spared([], [Path("../b/x.png")])
