from __future__ import annotations

import re
import time

import click
import pytest
import rich.console
from click.testing import CliRunner
from sdpack.cli import output
from sdpack.cli.output import progress, timed
from sdpack.cli.progress_log import ProgressLog

SAID = ("draw", "draw: 0 %", "draw: 50 %", "draw", "round: 0 %", "round: 10 %")


def context(quiet: bool = False) -> click.Context:
    return click.Context(click.Command("build"), obj={"quiet": quiet, "verbose": 0})


@pytest.mark.parametrize(("quiet", "said"), [(False, "draw\ndraw\nround\n"), (True, "")])
def test_a_log_is_told_what_is_done_unless_it_is_to_be_quiet(
    capsys: pytest.CaptureFixture[str], quiet: bool, said: str
) -> None:
    with progress(context(quiet)) as say:
        for words in SAID:
            say(words)
    heard = capsys.readouterr()
    assert heard.err == said
    assert heard.out == ""


def test_a_log_hears_of_a_stage_that_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reminded: list[bool] = []
    monkeypatch.setattr(output, "LOG_EVERY_S", 0.01)
    monkeypatch.setattr(ProgressLog, "remind", lambda self: reminded.append(True))
    with progress(context()) as say:
        say("export")
        while not reminded:
            pass
    assert capsys.readouterr().err == "export\n"


def test_a_terminal_is_told_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = rich.console.Console(force_terminal=True, record=True, width=80)
    monkeypatch.setattr(output, "Console", lambda **_: terminal)
    seconds = iter([0.0, 60.0])
    with progress(context()) as say:
        monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
        for words in ("rounding: 0 %", "rounding: 50 %"):
            say(words)
        monkeypatch.undo()
    assert "rounding: 50 %, about 1 min left" in terminal.export_text()


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_ends_with_how_long_it_took_on_standard_error(quiet: bool) -> None:
    @click.command()
    @timed
    def command() -> None:
        click.echo('{"result": 1}')

    result = CliRunner().invoke(command, obj={"quiet": quiet})
    assert result.exit_code == 0
    assert result.stdout == '{"result": 1}\n'
    assert bool(re.fullmatch(r"done in \d+\.\d s\n", result.stderr)) is not quiet


def test_a_command_that_fails_is_not_done() -> None:
    @click.command()
    @timed
    def command() -> None:
        raise click.ClickException("no")

    assert CliRunner().invoke(command).stderr == "Error: no\n"
