from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sdpack.cli.main import COMMANDS, main
from sdpack.store.artifacts import Store

from tests.sdpack.graphs import linear, saved


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def read_json(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"sdpack {name}" in result.output
    assert "Example" in result.output


def test_the_exit_codes_are_documented() -> None:
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage" in run("--help").output


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


@pytest.mark.parametrize(
    "words",
    [
        ("profiles", "show", "4gb-gp"),
        ("profiles", "show", "nowhere.yaml"),
        ("catalog", "show", "nowhere.yaml"),
        ("nothing",),
        ("bild",),
        ("cache", "gc", "--unused-for", "-1"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.output.strip().splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("bild",), "build"),
        (("catalog", "chek"), "check"),
        (("build", "--profil", "x"), "--profile"),
        (("run", "b", "p", "--sed", "1"), "--seed"),
        (("quantize", "m.onnx", "--precison", "w4"), "--precision"),
    ],
)
def test_what_is_misspelt_is_answered_with_what_was_meant(
    words: tuple[str, ...], meant: str
) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Did you mean" in result.stderr
    assert f"'{meant}'" in result.stderr


def test_an_interrupt_anywhere_exits_with_130(tmp_path: Path) -> None:
    (tmp_path / "stopped.py").write_text(
        "import sdpack.cli.main as cli\n"
        "cli.LazyGroup.resolve_command = lambda *_: exec('raise KeyboardInterrupt')\n"
        "cli.main(['doctor'])\n"
    )
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr == "Error: stopped; run the same command to resume\n"


def test_the_cache_is_listed_and_emptied(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache" / "store")

    def write(folder: Path) -> None:
        (folder / "a").write_bytes(b"x" * 2048)

    store.make("graph", {"of": 1}, write)
    assert read_json("cache", "ls")["kinds"] == {"graph": {"count": 1, "bytes": 2048}}
    assert "2.0 KiB" in run("cache", "ls").output
    assert read_json("cache", "gc")["freed_bytes"] == 0
    assert read_json("cache", "gc", "--unused-for", "0")["freed_bytes"] == 2048


def test_the_doctor_names_what_is_missing() -> None:
    packages = {p["name"]: p for p in read_json("doctor")["packages"]}
    assert packages["torch"]["version"] is not None
    output = run("doctor").output
    for package in packages.values():
        assert package["name"] in output
        if package["version"] is None and package["extra"]:
            assert f"pip install 'sdpack[{package['extra']}]'" in output


def test_help_and_profiles_load_neither_torch_nor_onnx() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from sdpack.cli.main import main; "
        "CliRunner().invoke(main, ['--help']); CliRunner().invoke(main, ['profiles']); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_quantize_says_what_it_made(tmp_path: Path) -> None:
    path = saved(linear(np.random.default_rng(0).standard_normal((64, 48), np.float32)), tmp_path)
    batch = tmp_path / "batch.npz"
    np.savez(batch, x=np.random.default_rng(1).standard_normal((8, 64), np.float32))
    out = tmp_path / "small.onnx"
    words = ("quantize", str(path), "--precision", "w4", "--out", str(out))
    blind = run(*words)
    assert blind.exit_code == 0
    assert "layers: 1 w4:32" in blind.output
    assert "no calibration inputs were given" in blind.output
    assert blind.output.splitlines()[-1].startswith("done in ")
    found = read_json(*words, "--calibration", str(batch))
    assert found["layers"] == {"w4:32": 1}
    assert found["output_error_db"]["y"] < -15
    assert found["bytes_after"] == sum(p.stat().st_size for p in tmp_path.glob("small.onnx*"))
    kept = run(*words, "--keep", "linear")
    assert "layers: 1 kept" in kept.output
    assert "not quantized (3,072 numbers): w (linear, as --keep asks)" in kept.output
    left = read_json(*words, "--keep", "linear")["unquantized"]
    assert left == [{"name": "w", "numbers": 3072, "why": "linear, as --keep asks"}]
    for wrong in ("w5", "mixed@1"):
        result = run(*words[:3], wrong, "--calibration", str(batch))
        assert result.exit_code == 2
        assert result.output.splitlines()[-1].startswith("Error: ")
