from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.bundle import open_bundle

from tests.sdpack.bundles import write_drawing_bundle
from tests.sdpack.cli.calling import read_json, run


def test_a_bundle_is_shown_part_by_part(drawing: Path) -> None:
    manifest, shown = open_bundle(drawing), run("inspect", str(drawing)).output
    assert shown.startswith("drawing: zoo for cpu-2gb")
    for role, part in manifest.parts.items():
        (line,) = [row for row in shown.splitlines() if row.strip(" │").startswith(role.value)]
        assert part.candidate in line
        assert part.licence in line
    assert f"{len(manifest.files)} files, all unchanged" in shown


def test_as_json_it_is_the_manifest(drawing: Path) -> None:
    assert read_json("inspect", str(drawing)) == json.loads((drawing / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers": {"w4:32": 3, "kept": 1}}, "layers by precision: 3 w4:32, 1 unquantized"),
        ({"refused": ["a", "b"]}, "2 layers are not quantized, as the compiler rejects them"),
        ({"fp32_nodes": list("abcd")}, "4 nodes compute in fp32 for their range: a, b, c ..."),
    ],
)
def test_mixed_and_fp32_layers_are_listed(
    drawing: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    parts = {r: p.model_dump() for r, p in open_bundle(drawing).parts.items()}
    for part in parts.values():
        part |= changes
    write_drawing_bundle(tmp_path / "b", parts=parts)
    assert f"denoiser: {said}" in run("inspect", str(tmp_path / "b")).output


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    write_drawing_bundle(tmp_path / "b")
    (tmp_path / "b" / "sampler.json").write_text("{}")
    result = run("inspect", str(tmp_path / "b"))
    assert result.exit_code == 1
    assert "sampler.json" in result.stderr
