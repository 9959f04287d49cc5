from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.errors import SdpackError
from sdpack.export.adopt import adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.single_file.names import (
    explain_file,
    explain_pickle,
    is_pickle,
    is_single_file,
)


def test_a_missing_file_and_a_catalog_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SdpackError, match=rf"no file {tmp_path}/file_8.safetensors"):
        adopt("file_8.safetensors")
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(SdpackError, match=r"if it is a catalog, use --catalog"):
        adopt("mine.yaml")


def test_a_file_where_a_catalog_needs_a_folder_is_told_how_to_convert(tmp_path: Path) -> None:
    (tmp_path / "sd15.safetensors").touch()
    with pytest.raises(SdpackError, match="a catalog lists folders; make them, and a catalog"):
        _ = Checkpoint(tmp_path / "sd15.safetensors").class_name


@pytest.mark.parametrize(
    ("name", "is_one", "runs_code"),
    [
        ("sd15.safetensors", True, False),
        ("SD15.CKPT", True, True),
        ("vae.pt", True, True),
        ("flux.gguf", True, False),
        ("sd15", False, False),
        ("notes.txt", False, False),
        ("safetensors", False, False),
    ],
)
def test_a_single_file_is_recognized_by_its_suffix(
    name: str, is_one: bool, runs_code: bool
) -> None:
    assert is_single_file(name) == is_one
    assert is_pickle(name) == runs_code


@pytest.mark.parametrize("name", ["a.safetensors", "a.yaml", "a.txt", "it's.ckpt"])
def test_the_advice_is_one_line_that_begins_with_the_file(name: str) -> None:
    for said in (explain_file(Path(name)), explain_pickle(Path(name))):
        assert said.startswith(f"{name} is a ")
        assert "\n" not in said
    assert ("sdpack catalog from" in explain_file(Path(name))) == is_single_file(name)
