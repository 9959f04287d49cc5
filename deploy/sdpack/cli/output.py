"""Tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sdpack.cli.interrupts import heed
from sdpack.progress import without_count

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@contextmanager
def progress(ctx: click.Context) -> Iterator[Callable[[str], None]]:
    """What long work calls with a line on what it does: a spinner, or lines of a log when piped.

    Piped, the lines are only written with -v, and not how far each thing is; -q writes nothing.
    Each call raises KeyboardInterrupt if there was an interrupt that went unheard.
    """
    settings = ctx.obj or {"quiet": False, "verbose": 0}
    console = Console(stderr=True)
    if not console.is_terminal:
        wanted = settings["verbose"] > 0 and not settings["quiet"]
        last = ""

        def write(words: str) -> None:
            nonlocal last
            heed()
            doing = without_count(words)
            if wanted and (doing == words or doing != last):
                click.echo(doing, err=True)
            last = doing

        yield write
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=settings["quiet"]) as bar:
        task = bar.add_task("looking at what there is")

        def show(words: str) -> None:
            heed()
            bar.update(task, description=escape(words))

        yield show


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=1))


def print_lines(lines: Iterable[str]) -> None:
    """Sentences on standard output; broken between words on a terminal, whole when piped."""
    console = Console()
    for line in lines:
        if console.is_terminal:
            console.print(line, markup=False, highlight=False)
        else:
            click.echo(line)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str = "",
    right: Sequence[str] = (),
) -> None:
    """A table on standard output; colours only on a terminal, whole cells when piped."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
