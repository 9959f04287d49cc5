"""Printing of tables, JSON and progress."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, ParamSpec

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sdpack.cli.interrupts import heed
from sdpack.cli.progress_log import LOG_EVERY_S, Paces, ProgressLog
from sdpack.domain.precision import UNQUANTIZED
from sdpack.progress import Say
from sdpack.units import format_duration

P = ParamSpec("P")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@contextmanager
def progress(ctx: click.Context) -> Iterator[Say]:
    """Provide a callback for progress messages, which are shown on standard error.

    A terminal shows one changing line. A log gets a line when a stage begins, and every half
    minute. -q shows nothing. The callback raises KeyboardInterrupt if an interrupt was lost before.
    """
    quiet = _is_quiet(ctx)
    console = Console(stderr=True)
    shown = _changing_line(console, quiet) if console.is_terminal else _lines(quiet)
    with shown as show:

        def say(words: str) -> None:
            heed()
            show(words)

        yield say


@contextmanager
def _changing_line(console: Console, quiet: bool) -> Iterator[Say]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    paces = Paces()
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task("checking the cache")

        def show(words: str) -> None:
            now = time.monotonic()
            paces.see(words, now)
            bar.update(task, description=escape(paces.with_estimate(words, now)))

        yield show


@contextmanager
def _lines(quiet: bool) -> Iterator[Say]:
    if quiet:
        yield lambda _: None
        return
    log = ProgressLog(lambda line: click.echo(line, err=True))
    ended = threading.Event()

    def remind() -> None:
        with suppress(OSError, ValueError):  # a closed pipe; the next message reports it
            while not ended.wait(LOG_EVERY_S / 10):
                log.remind()

    reminder = threading.Thread(target=remind, name="progress", daemon=True)
    reminder.start()
    try:
        yield log.say
    finally:
        ended.set()
        reminder.join()


def timed(command: Callable[P, None]) -> Callable[P, None]:
    """Make a command print its duration to standard error after it succeeds."""

    @wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        began = time.monotonic()
        command(*args, **kwargs)
        if not _is_quiet(click.get_current_context()):
            sys.stdout.flush()  # so that the duration comes last if both streams share a log
            click.echo(f"done in {format_duration(time.monotonic() - began)}", err=True)

    return call


def _is_quiet(ctx: click.Context) -> bool:
    return bool((ctx.obj or {}).get("quiet"))


def warn(line: str) -> None:
    """Print a warning to standard error, unless -q is given."""
    context = click.get_current_context(silent=True)
    if context is None or not _is_quiet(context):
        click.echo(f"Warning: {line}", err=True)


def layer_counts(layers: Mapping[str, int]) -> str:
    """Return the number of layers stored in each scheme, such as "3 w4:32, 1 unquantized"."""
    return ", ".join(
        f"{count} {'unquantized' if scheme == UNQUANTIZED else scheme}"
        for scheme, count in layers.items()
    )


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=1))


def print_lines(lines: Iterable[str]) -> None:
    """Print sentences; wrapped on a terminal, one per line otherwise."""
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
    """Print a table; coloured and fitted to the width on a terminal, with full cells otherwise."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(
        title=escape(title) or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
