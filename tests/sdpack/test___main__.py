from __future__ import annotations

import runpy
import sys

import pytest
from click.testing import CliRunner
from sdpack.cli.main import main


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["anything", "profiles"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("sdpack", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == CliRunner().invoke(main, ["profiles"]).stdout


def test_usage_names_the_command_and_not_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["anything", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module("sdpack", run_name="__main__")
    assert capsys.readouterr().out.startswith("Usage: sdpack ")
