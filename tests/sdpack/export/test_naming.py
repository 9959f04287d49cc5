from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sdpack.documents.document import Name
from sdpack.export.naming import LONGEST_NAME, RESERVED, catalog_name

VALID: TypeAdapter[Any] = TypeAdapter(Name)
# Of a folder: no slash, no zero byte, not one that means another folder.
folder_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=200
).filter(lambda text: text not in (".", ".."))


@given(folder_names)
def test_any_folder_gives_a_valid_name(folder: str) -> None:
    name = catalog_name(f"models/{folder}")
    assert VALID.validate_python(name) == name
    assert len(name) <= LONGEST_NAME
    assert not RESERVED.fullmatch(name)
    assert not name.endswith(".")


@given(st.lists(folder_names, min_size=2, max_size=2, unique=True))
def test_two_folders_never_share_a_name(folders: list[str]) -> None:
    first, second = (catalog_name(f"models/{folder}") for folder in folders)
    assert first != second


@pytest.mark.parametrize("folder", ["sd15", "stable-diffusion-v1-5", "SDXL_1.0", "a.b"])
def test_a_valid_name_is_kept(folder: str) -> None:
    assert catalog_name(f"owner/{folder}") == folder
    assert catalog_name(f"owner/{folder}/") == folder


@pytest.mark.parametrize(
    ("folder", "begins"),
    [
        ("写实", "model-"),
        ("(v2) mine", "v2-mine-"),
        ("ünïcödé", "unicode-"),
        ("...", "model-"),
        ("--", "model-"),
        (".hidden", "hidden-"),
        ("NUL", "model-NUL-"),
        ("com1.safe", "model-com1.safe-"),
        ("x" * 300, "x" * (LONGEST_NAME - 9) + "-"),
        (b"\xff\xfe".decode(errors="surrogateescape"), "model-"),
    ],
)
def test_what_is_no_valid_name_keeps_what_it_can(folder: str, begins: str) -> None:
    assert catalog_name(folder).startswith(begins)
    assert len(catalog_name(folder)) <= max(LONGEST_NAME, len(begins) + 8)


def test_the_folder_one_is_in_has_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "unet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "unet")
    assert catalog_name(".") == "unet"
    assert catalog_name("..") == "mine"
