"""A study of tiny parts, from the command line."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from diffusers import EulerDiscreteScheduler
from sdpack.store.ledger import read_rows

from tests.e2e import families, tiny
from tests.e2e.test_build import profile

pytestmark = pytest.mark.slow

BUDGETS = "1KiB,1GiB,2GiB"
LIMIT_S = 300


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny.write_catalog(folder / "catalog")
    return folder


def command(work: Path) -> list[str]:
    words = [sys.executable, "-m", "sdpack", "study", "--budgets", BUDGETS, "--images", "4"]
    words += ["--profile", str(profile(work, "cpu-2gb", ["fp32", "w4"]))]
    return [*words, "--catalog", str(work / "catalog"), "--out", str(work / "study"), "--json"]


def environment(work: Path) -> dict[str, str]:
    return {**os.environ, "SDPACK_CACHE": str(work / "cache")}


def study(work: Path) -> dict[str, Any]:
    ran = subprocess.run(
        command(work), env=environment(work), capture_output=True, text=True, timeout=LIMIT_S
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def scored(work: Path) -> set[str]:
    """The keys of the scores there are so far."""
    path = work / "cache" / "ledger.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True) as database:
        try:
            asked = "SELECT key FROM measurement WHERE kind = 'judge similarity'"
            return {key for (key,) in database.execute(asked)}
        except sqlite3.OperationalError:  # no table yet
            return set()


def test_a_study_goes_on_where_it_was_killed_and_draws_nothing_twice(work: Path) -> None:
    killed = subprocess.Popen(command(work), env=environment(work), stdout=subprocess.DEVNULL)
    until = time.monotonic() + LIMIT_S
    while not scored(work) and killed.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = scored(work)
    assert before
    assert not (work / "study" / "study.html").exists()
    found = study(work)
    assert before < scored(work)
    assert found["drawn"] == 4 * (len(scored(work)) - len(before))

    assert list(found["infeasible"]) == ["1024"]
    assert {p["budget_bytes"] for p in found["points"]} == {2**30, 2**31}
    whys = {p["why"] for p in found["points"] if not p["by_encoder"]}
    assert whys == {
        "best",
        "all fp32",
        "all w4",
        "encoder first",
        "denoiser first",
        "like Stable Diffusion",
    }
    assert all(p["pictures"] == 4 for p in found["points"])
    assert 0 < found["drawn"] <= found["exhaustive"]
    written = {path.name for path in (work / "study").rglob("*") if path.is_file()}
    assert {"study.html", "points.csv", "points.json", "ledger.jsonl"} < written

    again = study(work)
    assert again["drawn"] == 0
    assert again["points"] == found["points"]
    rows = read_rows(work / "study" / "ledger.jsonl", ["study", "judge similarity"])
    assert [row.kind for row in rows].count("study") == 1


@pytest.mark.slow
def test_a_model_is_studied_for_where_its_own_bytes_should_go(work: Path) -> None:
    model = families.write_model(work / "model", "sd", EulerDiscreteScheduler(**families.BETAS))
    device = str(profile(work, "cpu-2gb", ["fp32", "w8"]))
    words = [sys.executable, "-m", "sdpack", "study", "--budgets", "1GiB,2GiB", "--json"]
    words += ["--profile", device, "--model", str(model), "--out", str(work / "own")]
    asked = ["--size", "64x48", "--steps", "2", "--images", "2"]
    ran = subprocess.run(
        [*words, *asked], env=environment(work), capture_output=True, text=True, timeout=LIMIT_S
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["metric"] == "fidelity to fp32"
    assert {p["pictures"] for p in found["points"]} == {2}
    whole = next(p for p in found["points"] if p["why"] == "all fp32")
    assert whole["own"]["value"] == pytest.approx(1.0)
    refused = subprocess.run([*words, "--catalog", "sd15"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "give --model or --catalog, not both" in refused.stderr
