from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from sdpack.cli.main import main
from sdpack.engines import drawing


def test_a_plan_of_the_zoo_names_its_stages_and_fetches_nothing(tmp_path: Path) -> None:
    words = ("plan", "--profile", "cpu-2gb", "--images", "16")
    ran = CliRunner(env={"SDPACK_CACHE": str(tmp_path)}).invoke(main, words)
    assert ran.exit_code == 0, ran.output
    assert "download: nothing; all files are on this machine" in ran.stdout
    assert "building engines" not in ran.stdout, "a CPU needs none"
    for stage in ("exporting", "calibrating", "rounding", "drawing"):
        assert stage in ran.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("words", [("plan",), ("build", "--dry-run")])
def test_a_plan_of_a_model_of_the_hub_needs_its_files_or_the_hub(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "f" * 40
    reference = tmp_path / "hub" / "models--owner--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    asked = (*words, "--profile", "4gb-gpu", "--model", "owner/name")
    ran = CliRunner(env={"SDPACK_CACHE": str(tmp_path / "cache")}).invoke(main, asked)
    assert ran.exit_code != 0
    assert ran.output.startswith(f"Error: owner/name@{commit[:12]} is not on this machine")
    assert len(ran.output.splitlines()) == 1


def test_what_a_plan_does_not_depend_on_is_told(tmp_path: Path) -> None:
    words = ("build", "--dry-run", "--profile", "4gb-gpu", "--out", str(tmp_path / "out"))
    runner = CliRunner(env={"SDPACK_CACHE": str(tmp_path / "cache")})
    quiet = runner.invoke(main, words)
    assert "the plan is the same" not in quiet.stderr
    more = ("--within", "2h", "--workers", "2", "--max-seconds", "5")
    limited = runner.invoke(main, (*words, *more))
    assert limited.exit_code == 0
    told = " ".join(limited.stderr.split())
    assert "with and without --within, --workers, the limit of 5 s per image" in told
    assert limited.stdout == quiet.stdout


def test_a_plan_for_a_gpu_that_is_not_here_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "gpus", lambda: [])
    runner = CliRunner(env={"SDPACK_CACHE": str(tmp_path / "cache")})
    ran = runner.invoke(main, ("plan", "--profile", "4gb-gpu", "--draw-on", "cuda"))
    assert ran.exit_code == 2
    assert "--draw-on cuda: nvidia-smi lists no GPU" in ran.output


def test_layers_that_no_denoiser_reads_are_named_with_what_they_save(tmp_path: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    from tests.e2e import language_families

    folder = tmp_path / "model"
    language_families.write_model(folder, "z-image", FlowMatchEulerDiscreteScheduler())
    words = ("plan", "--profile", "4gb-gpu", "--model", str(folder), "--images", "16")
    ran = CliRunner(env={"SDPACK_CACHE": str(tmp_path / "cache")}).invoke(main, words)
    assert ran.exit_code == 0, ran.output
    said = " ".join(ran.stdout.split())
    assert "text-encoder: 17.8% of its parameters are in layers that no denoiser reads" in said
    assert "which saves 6.1 KiB in fp16" in said
