"""Models with language models as text encoders become bundles that draw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e import language_families
from tests.e2e.test_language_families import MODELS, SIZES

EVERY = [*MODELS, "klein, as deep as it is"]
IS_WHOLE = bool(os.environ.get("SDPACK_ALL_FAMILIES"))  # each build takes one to four minutes
BUILT = EVERY if IS_WHOLE else ["z-image"]
PROFILES = ("cpu-2gb", "4gb-gpu") if IS_WHOLE else ("cpu-2gb",)


def run(work: Path, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "sdpack", *words],
        env={**os.environ, "SDPACK_CACHE": str(work / "cache")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("family", [name for name in BUILT if name != "klein"])
def test_a_model_becomes_a_bundle_that_draws(family: str, profile: str, tmp_path: Path) -> None:
    """For a GPU, all parts are also compiled; the CPU draws with the graphs of the bundle."""
    model = MODELS[family.partition(",")[0]]
    folder, out = tmp_path / "model", tmp_path / "bundle"
    language_families.write_model(folder, family, model.scheduler())
    rows, columns = (side * model.side * model.pixels for side in SIZES[0])
    size = ("--size", f"{columns}x{rows}")
    steps = ("--images", "4", "--steps", "2")
    where = ("--profile", profile, "--model", str(folder), "--out", str(out))
    run(tmp_path, "build", *where, *size, *steps)
    drawn = [tmp_path / f"{number}.png" for number in range(2)]
    for prompt, path in zip(("a red cat", "a dog on a mat"), drawn, strict=True):
        drawing = ("--seed", "3", "--runtime", "onnxruntime-cpu", "--out", str(path))
        run(tmp_path, "run", str(out), prompt, *drawing)
    first, second = (np.asarray(Image.open(path)).astype(int) for path in drawn)
    assert first.shape == (rows, columns, 3)
    assert np.abs(first - second).max() > 0, "the text has an effect"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["conditioning"]["family"]
    assert bool(list(out.rglob("*.plan"))) is (profile == "4gb-gpu")
