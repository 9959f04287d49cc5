"""`sdpack inspect`: what a bundle is, and why."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.bundle import Manifest, open_bundle
from sdpack.cli.output import json_option, print_json, print_lines, print_table
from sdpack.placement import Role
from sdpack.units import format_bytes
from sdpack.verdict import verdict


@click.command("inspect", epilog="Example: sdpack inspect engines/4gb-gpu")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check a bundle's files and say what it is, what it takes and why it was chosen."""
    manifest = open_bundle(bundle)
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
        return
    profile, memory = manifest.profile, manifest.memory
    click.echo(f"{manifest.name}: {manifest.catalog} for {profile.name} ({profile.description})")
    parts = ("role", "candidate", "precision", "parameters", "weights", "licence")
    print_table(parts, [_row(manifest, role) for role in Role], right=("parameters", "weights"))
    click.echo(
        f"{format_bytes(memory.activation_bytes)} of the predicted peak is scratch of the "
        f"{memory.activation_role.replace('_', ' ')}"
    )
    print_lines(verdict(manifest))
    click.echo(f"{len(manifest.files)} files, all as shipped")


def _row(manifest: Manifest, role: Role) -> tuple[str, ...]:
    part = manifest.parts[role]
    loaded = manifest.memory.weights.get(role)
    return (
        role.value,
        part.candidate,
        part.precision.value,
        f"{part.parameters:,}",
        "when its turn comes" if loaded is None else format_bytes(loaded),
        part.licence if part.bridge is None else f"{part.licence}, bridge {part.bridge.licence}",
    )
