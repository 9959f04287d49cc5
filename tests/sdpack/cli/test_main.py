from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sdpack.cli.main import COMMANDS

from tests.sdpack.cli.calling import run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"sdpack {name}" in result.output
    assert "Example" in result.output


def test_the_exit_codes_are_documented() -> None:
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage" in run("--help").output


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


def test_help_and_profiles_load_neither_torch_nor_onnx() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from sdpack.cli.main import main; "
        "CliRunner().invoke(main, ['--help']); CliRunner().invoke(main, ['profiles']); "
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
