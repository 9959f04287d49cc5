"""`sdpack build`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.cli.catalog import catalog_option, located
from sdpack.cli.output import json_option, print_json, print_lines, print_table, progress
from sdpack.cli.require import require
from sdpack.profile import find_profile
from sdpack.units import format_bytes, parse_bytes
from sdpack.verdict import COLUMNS, NUMBERS, best_mixes, verdict


@click.command(
    "build",
    epilog="""\b
Examples:
  sdpack build --profile 4gb-gpu
  sdpack build --profile 8gb-gpu --memory 24MiB --out engines/small
  sdpack build --profile mine.yaml --catalog mine/catalog.yaml --json
""",
)
@click.option("--profile", "name", required=True, help="A device profile: its name or a file.")
@catalog_option
@click.option(
    "--memory", help="What the pipeline may take at its peak, as 24MiB; default: the profile's."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The bundle; default: engines/PROFILE."
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=384,
    show_default=True,
    help="Pictures of one mix at most.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    name: str,
    path: Path | None,
    memory: str | None,
    out: Path | None,
    images: int,
    as_json: bool,
) -> None:
    """Build the bundle of the best mix of parts that fits a device.

    Stopped at any moment, the same command goes on where it was; run twice, the second run makes
    nothing anew.
    """
    budget = None if memory is None else parse_bytes(memory)
    profile = find_profile(name)
    catalog = located(path)
    require(profile.runtime)
    from sdpack.evaluate.race import Rules
    from sdpack.pack.order import Order, check

    order = Order(
        profile, catalog, out or Path("engines") / profile.name, budget, Rules(most=images)
    )
    check(order)
    from sdpack.pack.build import build

    with progress(ctx) as say:
        result = build(order, say)
    manifest = result.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
        return
    fitting = f"{manifest.evidence.mixes:,} mixes that fit {format_bytes(order.budget)}"
    title = f"the best of {fitting}; weights and peak in MiB"
    print_table(COLUMNS, best_mixes(manifest), title, NUMBERS)
    print_lines(verdict(manifest))
    click.echo(f"{order.out} holds the bundle; look at {order.out / 'samples.png'}")
