from __future__ import annotations

from pathlib import Path

from tests.sdpack.cli.calling import read_json, run


def test_profiles_as_a_table_and_as_json() -> None:
    table = run("profiles").output
    names = [profile["name"] for profile in read_json("profiles")]
    assert "4gb-gpu" in names
    assert all(name in table for name in names)


def test_a_shown_profile_can_be_changed_and_shown_again(tmp_path: Path) -> None:
    text = run("profiles", "show", "4gb-gpu").output
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("4gb-gpu", "mine").replace("total: 4GiB", "total: 5GiB"))
    assert read_json("profiles", "show", str(mine))["memory"]["total"] == 5 * 2**30


def test_the_detected_profile_is_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(run("profiles", "detect").output)
    assert read_json("profiles", "show", str(mine))["name"].startswith("this-")
