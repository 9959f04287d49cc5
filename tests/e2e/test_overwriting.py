"""No command overwrites what it reads, by whatever name it is told to."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import click
import pytest
from sdpack.cli.main import main

from tests.e2e.test_build import run


@pytest.fixture(scope="module")
def work(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a bundle, as `whole`, and of the catalog it was built from, as `catalog`."""
    folder = tmp_path_factory.mktemp("overwriting")
    shutil.copytree(bundle, folder / "whole")
    shutil.copytree(bundle.parent / "catalog", folder / "catalog")
    return folder


@pytest.fixture(scope="module")
def whole(work: Path) -> Path:
    return work / "whole"


def _table(work: Path, whole: Path) -> dict[str, tuple[list[str], Path]]:
    """By command: the words before the path to write, and a file it reads that is in the way."""
    catalog, model, graph = work / "catalog", work / "catalog" / "text", work / "graph"
    if not graph.is_dir():
        graph.mkdir()
        shutil.copy(whole / "onnx" / "vae_decoder" / "model.onnx", graph / "unet.fp32.onnx")
        shutil.copy(whole / "onnx" / "vae_decoder" / "model.onnx.data", graph)
    build = ["build", "--profile", "cpu-2gb", "--catalog", str(catalog), "--out"]
    study = ["study", "--budgets", "1GiB", "--profile", "cpu-2gb", "--catalog", str(catalog)]
    return {
        "build": (build, catalog),
        "study": ([*study, "--out"], catalog / "catalog.yaml"),
        "compare": (["compare", str(whole), str(whole), "--out"], whole / "ledger.jsonl"),
        "report": (["report", str(whole), "--out"], whole / "manifest.json"),
        "run": (["run", str(whole), "noto, pizza", "--out"], whole / "samples.png"),
        "catalog from": (["catalog", "from", str(model), "--out"], model / "config.json"),
        "export triton": (["export", "triton", str(whole)], whole),
        "quantize": (
            ["quantize", str(graph / "unet.fp32.onnx"), "--precision", "w8", "--out"],
            graph / "model.onnx.data",
        ),
    }


def test_every_command_that_writes_where_it_is_told_is_tested_below(
    work: Path, whole: Path
) -> None:
    found = set()

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk(child, (*words, name))
        elif {"out", "folder"} & {parameter.name for parameter in command.params}:
            found.add(" ".join(words))

    walk(main, ())
    # It writes new files beside pickled weights, and none that is there.
    assert found - {"catalog convert"} == _table(work, whole).keys()


COMMANDS = (
    "build",
    "study",
    "compare",
    "report",
    "run",
    "catalog from",
    "export triton",
    "quantize",
)
REPLACING_FOLDERS = ("build", "export triton")  # of which there are no hard links


@pytest.mark.parametrize(
    ("command", "alias"),
    [
        (command, alias)
        for command in COMMANDS
        for alias in ("path", "symbolic", "hard", "relative")
        if alias != "hard" or command not in REPLACING_FOLDERS
    ],
)
def test_nothing_a_command_reads_is_overwritten(
    command: str,
    alias: str,
    work: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words, source = _table(work, whole)[command]
    monkeypatch.chdir(tmp_path)
    target = {
        "path": source,
        "symbolic": tmp_path / f"link{source.suffix}",
        "hard": tmp_path / f"second{source.suffix}",
        "relative": Path(os.path.relpath(source, tmp_path)),
    }[alias]
    if command == "quantize":  # OUT.data is the file in the way
        target = target.with_name("model.onnx" if alias in ("path", "relative") else "made.onnx")
        written = Path(f"{target}.data")
    elif command == "study":  # a file of its folder is
        written = tmp_path / "study" / "points.json"
        written.parent.mkdir()
        target = written.parent
    elif command == "catalog from":
        written = target = tmp_path / "made.yaml"
    else:
        written = target
    if not written.exists():
        if alias == "hard":
            os.link(source, written)
        else:
            written.symlink_to(source)
    before = {path: path.read_bytes() for path in _files(source)}
    result = run(work, *words, str(target))
    assert result.exit_code in (1, 2), result.output
    assert re.search("would be overwritten|is not empty", result.stderr), result.stderr
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in _files(source)} == before


def test_no_repository_goes_into_the_bundle_it_is_made_of(work: Path, whole: Path) -> None:
    result = run(work, "export", "triton", str(whole), str(whole / "models"))
    assert result.exit_code == 2
    assert "stray file in the bundle" in result.stderr
    assert not (whole / "models").exists()


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("build", "/"),
        ("compare", "."),
        ("report", "."),
        ("run", "."),
        ("export triton", "."),
        ("export triton", "/"),
        ("quantize", "."),
        *((command, "loop/x.onnx" if command == "quantize" else "loop/x") for command in COMMANDS),
    ],
)
def test_a_place_where_nothing_can_be_written_is_told_in_a_line(
    command: str, place: str, work: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders without a name, and what lies beyond a symbolic link that leads to itself."""
    words, _ = _table(work, whole)[command]
    monkeypatch.chdir(whole)
    (work / "loop").unlink(missing_ok=True)
    (work / "loop").symlink_to("loop")
    before = {path: path.read_bytes() for path in _files(whole)}
    result = run(work, *words, str(work / place) if place.startswith("loop") else place)
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert {path: path.read_bytes() for path in _files(whole)} == before


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
