from __future__ import annotations

import click
import pytest
from sdpack.cli.output import progress


@pytest.mark.parametrize(("verbose", "said"), [(0, ""), (1, "draw\ndraw\nround\n")])
def test_a_pipe_is_told_what_is_done_and_not_how_far_it_is(
    capsys: pytest.CaptureFixture[str], verbose: int, said: str
) -> None:
    context = click.Context(click.Command("build"), obj={"quiet": False, "verbose": verbose})
    with progress(context) as say:
        for words in ("draw", "draw: 0 %", "draw: 50 %", "draw", "round: 0 %", "round: 10 %"):
            say(words)
    assert capsys.readouterr().err == said
