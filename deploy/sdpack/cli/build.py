"""`sdpack build`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdpack.bundle import REPORT, SAMPLES
from sdpack.cli.options import out_option, profile_option
from sdpack.cli.ordering import files_read, order_of, order_options
from sdpack.cli.output import json_option, print_json, print_lines, print_table, progress, timed
from sdpack.cli.values import TEXT
from sdpack.errors import InputError
from sdpack.overwrite import check_spared
from sdpack.profile import find_profile
from sdpack.units import format_bytes, parse_bytes
from sdpack.verdict import best_mixes, columns, verdict


@click.command(
    "build",
    epilog="""\b
Examples:
  sdpack build --profile 4gb-gpu
  sdpack build -p 8gb-gpu --memory 24MiB -o engines/small
  sdpack build --profile mine.yaml --catalog mine/catalog.yaml --json
  sdpack build --profile 8gb-gpu --catalog sd15 --size 512,768x512 --batch 4
  sdpack build --profile 4gb-gpu --model ~/models/mine
""",
)
@profile_option()
@order_options(images=384)
@click.option(
    "--memory",
    type=TEXT,
    help="Memory the pipeline may take at its peak, such as 24MiB; default: the profile's.",
)
@out_option("Folder of the bundle; default: engines/PROFILE.")
@json_option
@click.pass_context
@timed
def command(
    ctx: click.Context,
    /,
    profile_name: str,
    memory: str | None,
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Build the bundle of the best mix of parts that fits a device.

    Builds resume after an interruption; a repeated build reuses everything.
    """
    budget = None if memory is None else parse_bytes(memory)
    profile = find_profile(profile_name)
    if budget is not None and budget > profile.memory.total:
        raise InputError(
            f"--memory {memory} is more than the {format_bytes(profile.memory.total)} of "
            f"{profile.name}; give less, or another profile"
        )
    order = order_of(profile, out or Path("engines") / profile.name, budget, **asked)
    check_spared(files_read(order, profile_name, asked["catalog_name"]), [order.out])
    from sdpack.pack.order import check

    check(order)
    from sdpack.pack.build import build
    from sdpack.report.build_page import write_report

    with progress(ctx) as say:

        def finish(folder: Path) -> None:
            say("drawing the charts")
            write_report(folder)

        result = build(order, say, finish)
    manifest = result.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
        return
    fitting = f"{manifest.evidence.mixes:,} mixes that fit {format_bytes(order.budget)}"
    title = f"the best of {fitting}; weights and peak in MiB"
    headings = columns(manifest)
    print_table(headings, best_mixes(manifest), title, headings[:-1])
    print_lines(verdict(manifest))
    page, samples = order.out / REPORT, order.out / SAMPLES
    click.echo(f"{order.out} holds the bundle; look at {page} and {samples}")
