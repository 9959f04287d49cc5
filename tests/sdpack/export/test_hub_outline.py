"""The real client of the hub, with a hub that runs on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import COMMIT, Hub, serving

NAME = "owner/name"


@pytest.fixture
def hub(models: Callable[[str], Path]) -> Iterator[Hub]:
    with serving({NAME: models("sdxl")}) as hub:
        yield hub


def run(hub: Hub, home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run sdpack as a user of this hub."""
    names = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "SDPACK_CACHE": str(home / "sdpack")}
    return subprocess.run(
        [sys.executable, "-m", "sdpack", *words],
        env={**os.environ, **names, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def plan(hub: Hub, home: Path) -> dict[str, Any]:
    done = run(hub, home, "plan", "--profile", "4gb-gpu", "--model", NAME, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_model_is_planned_from_its_configs_and_headers(
    hub: Hub, models: Callable[[str], Path], tmp_path: Path
) -> None:
    planned = plan(hub, tmp_path)
    weights = {name for name in hub.sent if name.endswith(".safetensors")}
    assert {Path(name).parts[0] for name in weights} >= {"text_encoder_2", "unet", "vae"}
    assert not weights & hub.whole, "only headers are fetched"
    assert not any("tokenizer" in name for name in hub.sent)
    files = [path for path in models("sdxl").rglob("*") if path.suffix == ".safetensors"]
    assert planned["fetch_bytes"] >= sum(path.stat().st_size for path in files)
    assert all(size["is_exact"] and not size["is_here"] for size in planned["sizes"])

    taken = run(hub, tmp_path, "catalog", "from", NAME, "--out", str(tmp_path / "catalog.yaml"))
    assert taken.returncode == 0, taken.stderr
    assert weights <= hub.whole
    fetched = plan(hub, tmp_path)
    assert fetched["fetch_bytes"] == 0
    assert fetched["mixes"] == planned["mixes"], "the same parameters, from headers and from files"


def test_a_plan_without_the_hub_says_what_it_needs(hub: Hub, tmp_path: Path) -> None:
    words = ("plan", "--profile", "4gb-gpu", "--model", NAME)
    done = run(hub, tmp_path, *words, HF_HUB_OFFLINE="1")
    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert not hub.sent


def test_weights_without_headers_are_named(models: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for path in models("sdxl").rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(models("sdxl"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with serving({NAME: folder}) as hub:
        done = run(hub, tmp_path, "plan", "--profile", "4gb-gpu", "--model", NAME)
        assert f"{NAME}@{COMMIT[:12]} has no .safetensors weights in unet/" in done.stderr
        weights.write_bytes(b"not a header")
        done = run(hub, tmp_path, "plan", "--profile", "4gb-gpu", "--model", NAME)
        assert done.returncode != 0
        assert "header for 'unet/diffusion_pytorch_model.safetensors'" in done.stderr
        assert "Traceback" not in done.stderr
