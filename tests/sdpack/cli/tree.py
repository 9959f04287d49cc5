"""Every command there is, found by walking the tree that the command line is."""

from __future__ import annotations

from collections.abc import Iterator

import click
from sdpack.cli.main import main

Words = tuple[str, ...]


def commands(
    group: click.Group = main, before: Words = ()
) -> Iterator[tuple[Words, click.Command]]:
    """Each command and group below a group, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield (*before, name), found
        if isinstance(found, click.Group):
            yield from commands(found, (*before, name))


def options() -> Iterator[tuple[Words, click.Option]]:
    """Each option of each command, hidden ones left out."""
    for words, command in [((), main), *commands()]:
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                yield words, parameter
