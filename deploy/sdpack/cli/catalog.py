"""`sdpack catalog`: the candidate parts."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.catalog import LocatedCatalog, default_catalog, read_catalog
from sdpack.cli.output import json_option, print_json, print_table
from sdpack.cli.require import require
from sdpack.placement import Role
from sdpack.precision import Runtime

catalog_option = click.option(
    "--catalog",
    "path",
    type=click.Path(path_type=Path),
    help="A catalog file or its folder; default: the zoo.",
)


def located(path: Path | None) -> LocatedCatalog:
    """The catalog at `path`, or the zoo's."""
    return default_catalog() if path is None else read_catalog(path)


@click.group(
    "catalog",
    epilog="""\b
Examples:
  sdpack catalog show
  sdpack catalog check --catalog mine.yaml
""",
)
def command() -> None:
    """Show or check the candidate parts."""


@command.command()
@catalog_option
@json_option
def show(path: Path | None, as_json: bool) -> None:
    """List the candidates by role."""
    found = located(path)
    if as_json:
        print_json(found.catalog.model_dump(mode="json", by_alias=True))
        return
    rows = [
        (role.value, name, str(candidate.source), candidate.licence)
        for role in Role
        for name, candidate in found.catalog.candidates(role).items()
    ]
    mixes = len(list(found.catalog.mixable()))
    title = f"{found.catalog.name}: {mixes} ways to put three parts together"
    print_table(("role", "candidate", "source", "licence"), rows, title)


@command.command()
@catalog_option
@json_option
def check(path: Path | None, as_json: bool) -> None:
    """Check that everything the catalog names on this machine is there, whole and of use."""
    found = located(path)
    require(Runtime.ONNXRUNTIME_CPU)
    from sdpack.pack.order import check_catalog

    check_catalog(found)
    quality = found.catalog.quality
    prompts = {
        key: len(found.prompts(getattr(quality, key)))
        for key in ("prompts", "calibration", "samples")
    }
    unused = [f"{role}.{name}" for role, name in found.catalog.unused()]
    if as_json:
        print_json({"name": found.catalog.name, "prompts": prompts, "unused": unused})
        return
    counts = ", ".join(f"{count} {key}" for key, count in prompts.items())
    click.echo(f"{found.catalog.name} is whole: {counts}")
    for name in unused:
        click.echo(f"{name} fits nothing else and will not be used")
