"""Every option and argument of every command, given what it cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sdpack.cli.main import main
from sdpack.cli.values import NonEmptyText

from tests.sdpack.cli.tree import Words, commands, options

RANGES = (click.IntRange, click.FloatRange)
LEAVES = {words: found for words, found in commands() if not isinstance(found, click.Group)}
NUMBERS = [(w, o) for w, o in options() if isinstance(o.type, RANGES) and not o.count]
MAY_BE_EMPTY = {"negative_prompt", "root_path", "forwarded_allow_ips", "cors_origin"}
GIVEN = {"words": "w4", "budgets": "8MiB", "profile_name": "4gb-gpu"}


def ident(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return value.opts[-1] if isinstance(value, click.Parameter) else str(value)


def called(words: Words, option: click.Option, value: str) -> list[str]:
    """The command with this value for this option, and what it besides cannot do without."""
    left_out = [p for p in LEAVES[words].params if p.required and p is not option]
    given: list[str] = []
    for parameter in left_out:
        text = GIVEN.get(str(parameter.name), "nowhere")
        named = [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
        given += [*named, text]
    return [*words, *given, f"{option.opts[-1]}={value}"]


def refused(result: Result, codes: tuple[int, ...] = (2,)) -> str:
    """The line a refusal ends with, once all else about it is seen to be right."""
    assert result.exit_code in codes, result.output
    assert isinstance(result.exception, SystemExit), "a traceback"
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.splitlines()[-1] == line
    assert result.stdout == ""
    return line


def outside(option: click.Option) -> list[str]:
    assert isinstance(option.type, RANGES)
    kind = option.type
    below = [] if kind.min is None else [str(kind.min - 1)]
    above = [] if kind.max is None else [str(kind.max + 1)]
    odd = ["nan", "inf", "-inf"] if isinstance(kind, click.FloatRange) else ["1.5"]
    return [*below, *above, *odd, "", "many"]


@pytest.mark.parametrize(("words", "option"), NUMBERS, ids=ident)
def test_a_number_out_of_range_is_refused_in_one_line(words: Words, option: click.Option) -> None:
    for value in outside(option):
        line = refused(CliRunner().invoke(main, called(words, option, value)))
        assert option.opts[-1] in line, value


TEXTS = [
    (w, o) for w, o in options() if not o.is_flag and isinstance(o.type, NonEmptyText | click.Path)
]


def test_every_option_with_text_refuses_none_or_takes_an_empty_one() -> None:
    checked = {option.name for _, option in [*TEXTS, *NUMBERS]}
    other = {
        option.name
        for _, option in options()
        if not option.is_flag and not option.count and not isinstance(option.type, click.Choice)
    }
    assert other - checked == {*MAY_BE_EMPTY, "seed"}


@pytest.mark.parametrize(("words", "option"), TEXTS, ids=ident)
def test_an_empty_option_is_refused_in_one_line(words: Words, option: click.Option) -> None:
    line = refused(CliRunner().invoke(main, called(words, option, "")))
    assert option.opts[-1] in line
    assert "it is empty" in line


REQUIRED = [
    (words, parameter)
    for words, command in LEAVES.items()
    for parameter in command.params
    if parameter.required
]


@pytest.mark.parametrize(("words", "parameter"), REQUIRED, ids=ident)
def test_what_is_required_is_asked_for(words: Words, parameter: click.Parameter) -> None:
    given = []
    for other in LEAVES[words].params:
        if other.required and isinstance(other, click.Option) and other is not parameter:
            given += [other.opts[-1], GIVEN.get(str(other.name), "nowhere")]
    if isinstance(parameter, click.Option):
        arguments = [p for p in LEAVES[words].params if isinstance(p, click.Argument)]
        given += ["nowhere"] * len(arguments)
    assert "Missing" in refused(CliRunner().invoke(main, [*words, *given]))


PATHS = [
    (words, argument)
    for words, command in LEAVES.items()
    for argument in command.params
    if isinstance(argument, click.Argument) and isinstance(argument.type, click.Path)
]


@pytest.mark.parametrize("place", ["nowhere", "a/b/c", "file", "folder", "file/below"])
@pytest.mark.parametrize(("words", "argument"), PATHS, ids=ident)
def test_a_path_to_nothing_or_to_something_else_is_refused_in_one_line(
    words: Words,
    argument: click.Argument,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if words == ("catalog", "convert") and place == "folder":
        pytest.skip("any folder may be looked through")
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("neither a bundle nor a graph\n")
    Path("folder").mkdir()
    given = []
    for parameter in LEAVES[words].params:
        if parameter.required or parameter is argument:
            named = [parameter.opts[-1]] if isinstance(parameter, click.Option) else []
            given += [*named, GIVEN.get(str(parameter.name), place)]
    line = refused(CliRunner().invoke(main, [*words, *given]), (1, 2))
    assert place.partition("/")[0] in line
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [
        "file",
        "folder",
    ]


ASKED = {
    "more memory than there is": ("build", "-p", "4gb-gpu", "--memory", "5GiB"),
    "no memory": ("build", "-p", "4gb-gpu", "--memory", "0"),
    "not a size": ("build", "-p", "4gb-gpu", "--size", "7"),
    "no size": ("build", "-p", "4gb-gpu", "--size", "64,,64"),
    "a batch backwards": ("build", "-p", "4gb-gpu", "--batch", "4-1"),
    "negative batch": ("build", "-p", "4gb-gpu", "--batch=-1"),
    "two sources": ("build", "-p", "4gb-gpu", "--model", "a", "--catalog", "sd15"),
    "budgets backwards": ("study", "--budgets", "8MiB:4MiB:3"),
    "no budgets": ("study", "--budgets", "8MiB:64MiB:0"),
    "too many budgets": ("study", "--budgets", "8MiB:64MiB:65"),
    "unlike a budget": ("study", "--budgets", "::"),
    "a budget of nothing": ("study", "--budgets", "0"),
    "unlike a precision": ("quantize", "nowhere.onnx", "--precision", "mixed@nan"),
    "an odd block": ("quantize", "nowhere.onnx", "--precision", "w4:7"),
}


@pytest.mark.parametrize("words", ASKED.values(), ids=list(ASKED))
def test_what_cannot_be_is_refused_in_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(CliRunner().invoke(main, words))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("build", "-p", "4gb-gpu"), ("study", "--budgets", "8MiB:64MiB:2")]
)
def test_long_work_does_not_begin_where_its_result_cannot_be_written(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below" / "it"):
        line = refused(CliRunner().invoke(main, [*words, "-o", str(out)]))
        assert f"{file} is not a folder" in line
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    line = refused(CliRunner().invoke(main, [*words, "-o", str(tmp_path / "a" / "b")]))
    assert f"{tmp_path} is read-only" in line
    assert file.read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no full device")
@pytest.mark.parametrize("words", [["--help"], ["profiles"], ["catalog", "ls", "--json"]])
def test_an_output_that_is_full_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "sdpack", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: No space left on device; check the disk\n"


@pytest.mark.parametrize("words", [["--help"], ["profiles"], ["catalog", "ls", "--json"]])
def test_an_output_that_nobody_reads_on_ends_without_a_word(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sdpack", *words]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode != 0
    assert done.stderr == ""
