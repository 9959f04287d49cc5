"""`sdpack build`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.catalog import LocatedCatalog
from sdpack.cli.catalog import catalog_option, located
from sdpack.cli.output import json_option, print_json, print_lines, print_table, progress
from sdpack.cli.require import require, require_charts
from sdpack.errors import CatalogError
from sdpack.profile import find_profile, parse_batch, parse_sizes
from sdpack.units import format_bytes, parse_bytes
from sdpack.verdict import best_mixes, columns, verdict


@click.command(
    "build",
    epilog="""\b
Examples:
  sdpack build --profile 4gb-gpu
  sdpack build --profile 8gb-gpu --memory 24MiB --out engines/small
  sdpack build --profile mine.yaml --catalog mine/catalog.yaml --json
  sdpack build --profile 8gb-gpu --catalog sd15 --size 512,768x512 --batch 4
  sdpack build --profile 4gb-gpu --model ~/models/mine
""",
)
@click.option(
    "--profile", "profile_name", required=True, help="A device profile: its name or a file."
)
@catalog_option
@click.option(
    "--model",
    help="A diffusers folder or hub repository instead of a catalog; its own fp32 is the measure.",
)
@click.option(
    "--size",
    "sizes",
    help="Pictures in pixels, as 512 or 512,768x512 (width x height); the first is the default.",
)
@click.option("--batch", help="Pictures drawn at once, as 4 or 1-4; default: the profile's.")
@click.option(
    "--steps", type=click.IntRange(min=1), help="Denoising steps; default: the catalog's."
)
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
    profile_name: str,
    catalog_name: str | None,
    model: str | None,
    sizes: str | None,
    batch: str | None,
    steps: int | None,
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
    profile = find_profile(profile_name)
    if model is not None and catalog_name is not None:
        raise CatalogError("give --model or --catalog, not both")
    require(profile.runtime)
    require_charts()
    catalog = located(catalog_name) if model is None else _adopted(model)
    from sdpack.evaluate.race import Rules
    from sdpack.pack.order import Order, check

    order = Order(
        profile,
        catalog,
        out or Path("engines") / profile.name,
        budget,
        Rules(most=images),
        parse_sizes(sizes) if sizes else (),
        parse_batch(batch) if batch else None,
        steps,
    )
    check(order)
    from sdpack.pack.build import build
    from sdpack.report.build_page import write_report

    with progress(ctx) as say:
        result = build(order, say)
        say("drawing the charts")
        _, page = write_report(order.out)
    manifest = result.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
        return
    fitting = f"{manifest.evidence.mixes:,} mixes that fit {format_bytes(order.budget)}"
    title = f"the best of {fitting}; weights and peak in MiB"
    headings = columns(manifest)
    print_table(headings, best_mixes(manifest), title, headings[:-1])
    print_lines(verdict(manifest))
    click.echo(f"{order.out} holds the bundle; look at {page} and {order.out / 'samples.png'}")


def _adopted(model: str) -> LocatedCatalog:
    from sdpack.export.adopt import adopt

    return adopt(model)
