from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from sdpack.documents.catalog_files import read_catalog

from tests.sdpack.cli.calling import read_json, run
from tests.sdpack.export.single_file.tiny_models import write_tiny


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


def test_a_catalog_of_a_single_file_lists_a_folder_beside_it(tmp_path: Path) -> None:
    model, out = write_tiny("sd1", tmp_path / "given"), tmp_path / "mine"
    words = ("catalog", "from", str(model.file), "-o", str(out), "--with", str(model.configs))
    result = run(*words, "--prediction", "v", "--steps", "7")
    assert result.exit_code == 0, result.output
    assert f"{model.file}: laid out as {model.configs}; prediction v (as given)" in result.output
    found = read_catalog(out)
    assert found.missing() == []
    assert found.catalog.denoisers["unet"].source.path == out / "sd1" / "unet"
    assert found.catalog.sampling.steps == (7,)
    config = json.loads((out / "sd1" / "scheduler" / "scheduler_config.json").read_text())
    assert config["prediction_type"] == "v_prediction"
    assert run(*words, "--prediction", "v").exit_code == 0
    other = run(*words, "--prediction", "epsilon")
    assert other.exit_code == 2
    assert f"{out / 'sd1'} exists already; remove it, or choose another --out" in other.output


def test_options_of_single_files_are_refused_for_folders(tmp_path: Path) -> None:
    result = run("catalog", "from", str(tmp_path), "-o", str(tmp_path / "mine"), "--base", "sd15")
    assert result.exit_code == 2
    assert "--base: only for a model in a single file" in result.output


def test_a_pickle_of_a_whole_model_is_converted_beside_it(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "mine.ckpt")
    target = tmp_path / "mine.safetensors"
    assert f"wrote {target}" in run("catalog", "convert", str(tmp_path / "mine.ckpt")).output
    assert torch.equal(load_file(target)["a"], torch.ones(2))
    again = run("catalog", "convert", str(tmp_path / "mine.ckpt"))
    assert again.exit_code == 1
    assert "exists already" in again.output
