from __future__ import annotations

from pathlib import Path

from tests.sdpack.cli.calling import read_json, run


def test_a_bundle_that_needs_no_engines_is_unchanged(drawing: Path) -> None:
    before = (drawing / "manifest.json").read_bytes()
    assert f"{drawing} already has all its engines" in run("finish", str(drawing)).output
    assert read_json("finish", str(drawing))["name"] == "drawing"
    assert (drawing / "manifest.json").read_bytes() == before
