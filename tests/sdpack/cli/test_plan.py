from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from sdpack.cli.main import main


def test_a_plan_of_the_zoo_names_its_stages_and_fetches_nothing(tmp_path: Path) -> None:
    words = ("plan", "--profile", "cpu-2gb", "--images", "16")
    ran = CliRunner(env={"SDPACK_CACHE": str(tmp_path)}).invoke(main, words)
    assert ran.exit_code == 0, ran.output
    assert "download: nothing; everything is here" in ran.stdout
    assert "building engines" not in ran.stdout, "a CPU needs none"
    for stage in ("exporting", "calibrating", "rounding", "drawing"):
        assert stage in ran.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
