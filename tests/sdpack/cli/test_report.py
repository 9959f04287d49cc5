from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sdpack.cli.main import main as cli
from sdpack.report.points import read_build
from sdpack.report.study_finding import finding
from sdpack.report.study_points import read_study

from benchmarks.example_ledgers import ledger_of_many, ledger_of_study


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "ledger.sqlite"
    ledger_of_many(path)
    return path


def test_the_command_prints_points_for_machines(ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    ran = CliRunner().invoke(cli, ["report", str(ledger), "--out", str(out), "--json"])
    assert ran.exit_code == 0
    found = json.loads(ran.stdout)
    assert len(found["mixes"]) == 216
    assert found["mixes"][0]["mix"] == read_build(ledger).record.winner
    assert out.is_file()


@pytest.mark.parametrize("words", [["absent.sqlite"], ["."], ["ledger.sqlite", "--build", "x"]])
def test_bad_input_is_one_line(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(ledger.parent)
    ran = CliRunner().invoke(cli, ["report", *words])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: ")
    assert len(ran.stderr.splitlines()) == 1


def test_a_study_is_drawn_again_from_its_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    ledger_of_study(ledger)
    out = tmp_path / "again" / "page.html"
    ran = CliRunner().invoke(cli, ["report", str(ledger), "--out", str(out), "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["finding"] == finding(read_study(ledger))
    assert out.is_file()
    assert (out.parent / "charts" / "shares.png").is_file()
