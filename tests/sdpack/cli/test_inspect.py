from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.bundle import open_bundle
from sdpack.domain.placement import Role

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


def test_as_json_it_is_the_manifest_and_what_its_licences_say(drawing: Path) -> None:
    shown = read_json("inspect", str(drawing))
    licences = shown.pop("licences")
    assert shown == json.loads((drawing / "manifest.json").read_text())
    assert licences["commercial_use"] == "unknown"
    assert {"part": "decoder s", "licence": "MIT", "commercial_use": "allowed"}.items() <= (
        licences["parts"][-1].items()
    )


def test_a_non_commercial_part_is_named_in_one_line(drawing: Path, tmp_path: Path) -> None:
    parts = {r: {**p.model_dump(), "loras": []} for r, p in open_bundle(drawing).parts.items()}
    lora = {"source": "owner/lora", "licence": "cc-by-nc-4.0", "scale": 1.0}
    parts[Role.TEXT_ENCODER]["bridge"] = {"source": "b", "licence": "Apache-2.0"}
    parts[Role.DENOISER]["loras"] = [lora]
    write_drawing_bundle(tmp_path / "b", parts=parts)
    shown = run("inspect", str(tmp_path / "b")).output
    assert "MIT, bridge Apache-2.0" in shown
    assert "MIT, LoRA cc-by-nc-4.0" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("Licences")]
    assert line == (
        "Licences: not for commercial use, because of LoRA owner/lora of denoiser s (cc-by-nc-4.0)."
    )


def test_scores_by_category_are_listed(drawing: Path, tmp_path: Path) -> None:
    assert "category" not in run("inspect", str(drawing)).output
    evidence = open_bundle(drawing).evidence.model_dump(mode="json")
    score = {"value": 0.31, "low": 0.29, "high": 0.33, "pictures": 48}
    evidence["standings"][0]["categories"] = {"count": score}
    write_drawing_bundle(tmp_path / "b", evidence=evidence)
    shown = run("inspect", str(tmp_path / "b")).output
    assert "scores by category of prompts" in shown
    (line,) = [row for row in shown.splitlines() if row.strip(" │").startswith("count")]
    assert "48" in line
    assert "0.310 [0.290, 0.330]" in line


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
