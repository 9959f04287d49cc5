from __future__ import annotations

from pathlib import Path

from tests.sdpack.cli.calling import read_json, run


def test_a_folder_that_holds_something_is_left_alone(drawing: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    result = run("export", "triton", str(drawing), str(tmp_path))
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_models_of_the_repository_are_named(drawing: Path, tmp_path: Path) -> None:
    found = read_json("export", "triton", str(drawing), str(tmp_path / "models"))
    assert found["models"][0] == "drawing"
    assert sorted(found["models"]) == sorted(path.name for path in (tmp_path / "models").iterdir())
