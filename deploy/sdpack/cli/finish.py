"""`sdpack finish`: builds the engines that only the device itself can build."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.cli.output import json_option, print_json, progress, timed
from sdpack.cli.values import PATH
from sdpack.units import format_bytes


@click.command("finish", epilog="Example, on the device: sdpack finish bundles/jetson")
@click.argument("bundle", type=PATH)
@json_option
@click.pass_context
@timed
def command(ctx: click.Context, bundle: Path, as_json: bool) -> None:
    """Build a bundle's missing engines for this machine's GPU.

    Engines of classic TensorRT (Jetson, data-centre GPUs) run only on the GPU they were built on.
    A bundle that has all its engines stays unchanged.
    """
    from sdpack.documents.bundle import read_manifest
    from sdpack.runtime.finish import finish, unfinished

    missing = unfinished(read_manifest(bundle))
    with progress(ctx) as say:
        manifest = finish(bundle, say)
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
        return
    finished = manifest.finished
    if not missing or finished is None:
        click.echo(f"{bundle} already has all its engines")
        return
    for role, plan in finished.plans.items():
        click.echo(
            f"{role.words}: {format_bytes(plan.weight_bytes)} of weights, "
            f"{format_bytes(plan.activation_bytes)} of scratch"
        )
    click.echo(
        f"{bundle} is finished for {finished.machine}; measure it with `sdpack verify {bundle}`"
    )
