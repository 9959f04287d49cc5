from __future__ import annotations

from pathlib import Path

from tests.sdpack.cli.calling import read_json, run


def test_the_zoo_is_the_default_catalog() -> None:
    assert "18 combinations" in run("catalog", "show").output
    assert read_json("catalog", "show", "sdxl")["name"] == "sdxl"
    assert read_json("catalog", "check") == {
        "name": "zoo",
        "prompts": {"prompts": 384, "calibration": 256, "samples": 20},
        "unused": [],
    }


def test_a_catalog_with_missing_files_fails_the_check(tmp_path: Path) -> None:
    zoo = Path(__file__).parents[3] / "zoo" / "catalog.yaml"
    (tmp_path / "catalog.yaml").write_text(zoo.read_text())
    result = run("catalog", "check", str(tmp_path))
    assert result.exit_code == 2
    assert "denoisers.s" in result.output
    assert "is missing" in result.output


def test_every_built_in_catalog_is_listed() -> None:
    found = [entry["name"] for entry in read_json("catalog", "ls")]
    table = run("catalog", "ls").output
    assert {"sd15", "sdxl", "flux"} <= set(found)
    assert all(name in table for name in found)


def test_candidates_are_shown_by_role_with_their_licence() -> None:
    catalog = read_json("catalog", "show", "sd15")
    table = run("catalog", "show", "sd15").output
    for group in ("text_encoders", "denoisers", "decoders"):
        assert all(name in table for name in catalog[group])


def test_a_folder_without_pickles_is_reported(tmp_path: Path) -> None:
    assert "holds no pickled weights" in run("catalog", "convert", str(tmp_path)).output
    assert read_json("catalog", "convert", str(tmp_path)) == []
