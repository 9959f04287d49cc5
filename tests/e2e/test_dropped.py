"""A text encoder that can be left out races against its absence, and goes where memory is short."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from diffusers import FlowMatchEulerDiscreteScheduler
from sdpack.cli.main import main
from sdpack.documents.bundle import open_bundle
from sdpack.documents.profile import profiles_folder
from sdpack.domain.placement import Role

from tests.e2e import families, tiny

pytestmark = pytest.mark.slow

T5 = Role.TEXT_ENCODER_3


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 3, tiny, as a catalog with a judge in which T5 can be left out."""
    work = tmp_path_factory.mktemp("dropped")
    families.write_model(work / "model", "sd3", FlowMatchEulerDiscreteScheduler())
    tiny.write_catalog(work / "tiny")
    catalog = work / "catalog"
    invoke(work, "catalog", "from", str(work / "model"), "--out", str(catalog), "--steps", "2")
    for name in ("judge", "tokenizer"):
        shutil.copytree(work / "tiny" / name, catalog / name)
    for name in ("prompts.jsonl", "real.png"):
        shutil.copyfile(work / "tiny" / name, catalog / name)
    path = catalog / "catalog.yaml"
    values = yaml.safe_load(path.read_text())
    (denoiser,) = values["denoisers"].values()
    denoiser["droppable"] = [denoiser["states"][-1]]
    values["quality"] = tiny.catalog()["quality"]
    values["image_size"] = tiny.SIDE
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    profile = yaml.safe_load((profiles_folder() / "h200.yaml").read_text())
    profile |= {"name": "gpu", "runtime": "onnxruntime-cuda", "precisions": ["fp16"]}
    (work / "gpu.yaml").write_text(yaml.safe_dump(profile))
    return work


def invoke(work: Path, *words: str) -> str:
    done = CliRunner(env={"SDPACK_CACHE": str(work / "cache")}).invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def build(work: Path, name: str, *more: str) -> dict[str, Any]:
    words = ("--profile", str(work / "gpu.yaml"), "--catalog", str(work / "catalog"))
    out = ("--out", str(work / name), "--images", "4", "--json")
    manifest: dict[str, Any] = json.loads(invoke(work, "build", *words, *out, *more))
    return manifest


def test_both_race_and_the_smaller_is_taken_where_the_other_does_not_fit(work: Path) -> None:
    whole = build(work, "whole")
    standings = {standing["mix"]: standing for standing in whole["evidence"]["standings"]}
    assert len(standings) == 2
    (least, least_peak), (most, most_peak) = sorted(
        ((mix, standing["peak_bytes"]) for mix, standing in standings.items()), key=lambda x: x[1]
    )
    assert most.count("+") == least.count("+") + 1, "they differ by one part"
    assert all(standing["quality"]["pictures"] == 4 for standing in standings.values())
    budget = (least_peak + most_peak) // 2
    small = build(work, "small", "--memory", f"{budget // 1024}KiB")
    assert T5.value not in small["parts"]
    assert small["memory"]["predicted_bytes"] <= budget
    manifest = open_bundle(work / "small")
    assert T5 not in manifest.parts
    assert manifest.placement.loading.value == "resident", "no slower way was needed"
    drawn = work / "fox.png"
    invoke(work, "run", str(work / "small"), "a fox", "--out", str(drawn))
    assert drawn.is_file()
