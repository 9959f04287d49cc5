"""`sdpack inspect`: shows a bundle's parts, and why they were chosen."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.cli.explain import verdict
from sdpack.cli.output import json_option, layer_counts, print_json, print_lines, print_table
from sdpack.cli.values import PATH
from sdpack.documents.bundle import open_bundle
from sdpack.documents.manifest import Manifest, Part
from sdpack.domain.licences import licence_figures, licence_line
from sdpack.domain.placement import Role
from sdpack.units import format_bytes


@click.command("inspect", epilog="Example: sdpack inspect engines/4gb-gpu")
@click.argument("bundle", type=PATH)
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check a bundle's files, and show its parts, its memory use and why it was chosen."""
    manifest = open_bundle(bundle)
    if as_json:
        licences = {"licences": licence_figures(manifest.licensed_parts)}
        print_json(manifest.model_dump(mode="json", by_alias=True) | licences)
        return
    profile, memory = manifest.profile, manifest.memory
    click.echo(f"{manifest.name}: {manifest.catalog} for {profile.name} ({profile.description})")
    parts = ("role", "candidate", "precision", "parameters", "weights", "licence")
    print_table(
        parts, [_row(manifest, role) for role in manifest.parts], right=("parameters", "weights")
    )
    click.echo(
        f"{format_bytes(memory.activation_bytes)} of the predicted peak is scratch memory of the "
        f"{memory.activation_role.words}"
    )
    print_lines(line for role in manifest.parts for line in _layers(manifest, role))
    _print_categories(manifest)
    print_lines([*verdict(manifest), licence_line(manifest.licensed_parts)])
    click.echo(f"{len(manifest.files)} files, all unchanged")


def _print_categories(manifest: Manifest) -> None:
    """Print the winner's scores by category of prompts, if the prompts have categories."""
    evidence = manifest.evidence
    winner = evidence.winner
    rows = [
        (name, str(score.pictures), f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
        for name, score in winner.categories.items()
    ]
    if rows:
        columns = ("category", "images", f"{evidence.metric}, 95 %")
        print_table(columns, rows, "scores by category of prompts", right=("images",))


def _row(manifest: Manifest, role: Role) -> tuple[str, ...]:
    part, memory = manifest.parts[role], manifest.memory
    loaded = memory.weights.get(role)
    return (
        role.value,
        part.candidate,
        part.precision.value,
        f"{part.parameters:,}",
        "when it runs" if loaded is None else format_bytes(loaded),
        _licences(part),
    )


def _licences(part: Part) -> str:
    """The licences of a part, and of the bridge and the LoRAs in it."""
    bridge = [] if part.bridge is None else [f"bridge {part.bridge.licence}"]
    loras = [f"LoRA {lora.licence}" for lora in part.loras or ()]
    return ", ".join([part.licence, *bridge, *loras])


def _layers(manifest: Manifest, role: Role) -> list[str]:
    """Describe layers that differ from the part's precision."""
    part, name = manifest.parts[role], role.words
    lines = []
    if len(part.layers) > 1:
        lines.append(f"{name}: layers by precision: {layer_counts(part.layers)}")
    if part.refused:
        kept = len(part.refused)
        lines.append(f"{name}: {kept} layers are not quantized, as the compiler rejects them")
    if part.fp32_nodes:
        shown = ", ".join(part.fp32_nodes[:3]) + (" ..." if len(part.fp32_nodes) > 3 else "")
        lines.append(
            f"{name}: {len(part.fp32_nodes)} nodes compute in fp32 for their range: {shown}"
        )
    return lines
