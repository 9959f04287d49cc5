"""`sdpack cache`: lists or removes cached artifacts."""

from __future__ import annotations

from collections import Counter

import click

from sdpack.cli.output import json_option, print_json, print_table
from sdpack.cli.values import Finite
from sdpack.store.artifacts import Store, cache_folder
from sdpack.units import format_bytes

STORE = "store"
SECONDS_A_DAY = 86_400


@click.group(
    "cache",
    epilog="""\b
Examples:
  sdpack cache ls
  sdpack cache gc --unused-for 30
""",
)
def command() -> None:
    """List or remove the artifacts that builds keep for later builds."""


@command.command(epilog="Example: sdpack cache ls --json")
@json_option
def ls(as_json: bool) -> None:
    """List how many artifacts of each kind are kept, and their size."""
    folder = cache_folder() / STORE
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for artifact in Store(folder).artifacts():
        counts[artifact.kind] += 1
        sizes[artifact.kind] += artifact.bytes
    if as_json:
        kinds = {kind: {"count": counts[kind], "bytes": sizes[kind]} for kind in sorted(counts)}
        print_json({"folder": str(folder), "kinds": kinds})
        return
    rows = [(kind, str(counts[kind]), format_bytes(sizes[kind])) for kind in sorted(counts)]
    total = ("all", str(counts.total()), format_bytes(sizes.total()))
    print_table(("kind", "artifacts", "size"), [*rows, total], str(folder), ("artifacts", "size"))


@command.command(
    epilog="""\b
Examples:
  sdpack cache gc                       removes artifacts not used for 30 days
  sdpack cache gc --unused-for 0        removes everything
""",
)
@click.option(
    "--unused-for",
    "days",
    type=Finite(min=0),
    default=30,
    show_default=True,
    help="Remove artifacts not used for this many days; 0 removes everything.",
)
@json_option
def gc(days: float, as_json: bool) -> None:
    """Remove artifacts that were not used for some time; measurements stay."""
    freed = Store(cache_folder() / STORE).collect(days * SECONDS_A_DAY)
    if as_json:
        print_json({"freed_bytes": freed})
    else:
        click.echo(f"freed {format_bytes(freed)}")
