from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from sdpack.cli.drawing import least_memory_option, runtime_option
from sdpack.domain.precision import Runtime

from tests.sdpack.cli.tree import options


@click.command()
@runtime_option
@least_memory_option
def command(**given: Any) -> None:
    click.echo(repr(sorted(given.items())))


@pytest.mark.parametrize("runtime", Runtime)
def test_every_runtime_can_be_named(runtime: Runtime) -> None:
    found = CliRunner().invoke(command, ["--runtime", runtime.value, "--least-memory"])
    assert found.output == f"{[('least_memory', True), ('runtime', runtime.value)]}\n"


def test_no_runtime_is_chosen_by_default() -> None:
    assert CliRunner().invoke(command, []).output == (
        "[('least_memory', False), ('runtime', None)]\n"
    )


def test_commands_that_draw_have_a_runtime_option() -> None:
    told = {words for words, option in options() if option.name == "runtime"}
    assert {("run",), ("serve",), ("verify",)} <= told
