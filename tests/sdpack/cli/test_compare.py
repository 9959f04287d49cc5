from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from sdpack.cli.main import main as cli
from sdpack.report.compare import compare

from benchmarks.example_ledgers import METRIC
from tests.sdpack.report.test_compare import NOISE, bundle


def test_one_line_says_what_changed_and_what_it_costs(tmp_path: Path) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    second = bundle(tmp_path / "two", "w4", NOISE - 0.05)
    run = CliRunner().invoke(cli, ["compare", str(first), str(second), "--brief"])
    assert run.exit_code == 0
    assert run.output.startswith(
        "one -> two: text encoder a/fp16 -> a/w4, denoiser a/fp16 -> a/w4, decoder a/fp16 -> a/w4; "
        "predicted peak "
    )
    cost = "-0.050 [-0.050, -0.050] (95 % interval) over 40 prompts."
    assert run.output.rstrip().endswith(f"{METRIC} {cost}")
    assert run.output.count("\n") == 1
    same = compare(first, first).summary
    assert same.startswith(f"{first} -> {first} again: the same mix; ")
    assert same.endswith(f"{METRIC} unchanged over 40 prompts.")


def test_the_command_prints_both(tmp_path: Path) -> None:
    first = bundle(tmp_path / "one", "fp16", NOISE)
    second = bundle(tmp_path / "two", "w4", NOISE - 0.05)
    out = tmp_path / "c.html"
    words = ["compare", str(first), str(second), "--out", str(out)]
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 0
    assert "one draws better than two" in ran.stdout
    assert out.is_file()
    found = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert found["prompts"] == len(NOISE)
    assert found["difference"]["low"] > 0
