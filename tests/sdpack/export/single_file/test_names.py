from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.errors import SdpackError
from sdpack.export.adopt import adopt
from sdpack.export.checkpoint import Checkpoint
from sdpack.export.single_file import explain_single_file, is_single_file


def test_a_checkpoint_in_a_single_file_is_told_how_to_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SdpackError, match=rf"no file {tmp_path}/file_8.safetensors.*not supported"):
        adopt("file_8.safetensors")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file_8.safetensors").touch()
    with pytest.raises(SdpackError) as caught:
        adopt("models/file_8.safetensors")
    said = str(caught.value)
    assert "a checkpoint in a single file, which is not supported yet" in said
    command = "P.from_single_file('models/file_8.safetensors').save_pretrained('models/file_8')"
    assert command in said
    with pytest.raises(SdpackError, match="in a single file, which is not supported yet"):
        _ = Checkpoint(tmp_path / "models" / "file_8.safetensors").class_name
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(SdpackError, match=r"if it is a catalog, use --catalog"):
        adopt("mine.yaml")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("sd15.safetensors", True),
        ("SD15.CKPT", True),
        ("flux.gguf", True),
        ("sd15", False),
        ("notes.txt", False),
        ("safetensors", False),
    ],
)
def test_a_single_file_checkpoint_is_recognized_by_its_suffix(name: str, is_one: bool) -> None:
    assert is_single_file(name) == is_one


@pytest.mark.parametrize("name", ["a.safetensors", "a.yaml", "a.txt", "it's.ckpt"])
def test_the_advice_is_one_line_that_begins_with_the_file(name: str) -> None:
    said = explain_single_file(Path(name))
    assert said.startswith(f"{name} is a ")
    assert "\n" not in said
    assert ("from_single_file" in said) == is_single_file(name)
