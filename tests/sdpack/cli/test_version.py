from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import distributions, version

import pytest
from click.testing import CliRunner
from sdpack.cli.main import main
from sdpack.cli.version import PACKAGES


def shown(option: str) -> dict[str, str]:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    return dict(line.split(" ", 1) for line in result.stdout.splitlines())


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_first_line_is_sdpack_and_its_version(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.stdout.splitlines()[0] == f"sdpack {version('sdpack')}"


def test_what_sdpack_runs_on_is_shown_where_it_is_installed() -> None:
    installed = {found.name.replace("_", "-"): found.version for found in distributions()}
    expected = {name: installed[name] for name in PACKAGES if name in installed}
    assert {"numpy", "onnxruntime", "torch", "diffusers", "transformers"} <= set(expected)
    found = shown("--version")
    assert {name: found[name] for name in found if name in PACKAGES} == expected
    assert found["python"] == platform.python_version()
    assert platform.machine() in found["platform"]


def test_no_package_is_imported_to_tell_its_version() -> None:
    modules = ("numpy", "tokenizers", "torch", "diffusers", "onnx", "onnxruntime", "tensorrt_rtx")
    script = (
        "import sys; from sdpack.cli.main import main; main(['--version'], standalone_mode=False);"
        f"print('imported', [m for m in {modules} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "imported []", done.stderr
