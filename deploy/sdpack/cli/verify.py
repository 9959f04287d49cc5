"""`sdpack verify`: checks a bundle, and measures its memory on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sdpack.cli.drawing import runtime_option
from sdpack.cli.output import json_option, print_json
from sdpack.cli.values import PATH
from sdpack.documents.bundle import open_bundle
from sdpack.documents.manifest import Manifest
from sdpack.domain.precision import Runtime
from sdpack.units import format_bytes


def _incomparable(manifest: Manifest, chosen: Runtime) -> str:
    profile, predicted = manifest.profile, format_bytes(manifest.memory.predicted_bytes)
    if chosen is not profile.runtime:
        return f"there is no prediction for {chosen}; this bundle is for {profile.runtime}"
    if profile.memory.unified:
        return (
            f"the prediction, {predicted}, is for the memory that CPU and GPU share, and cannot be "
            "compared with host memory"
        )
    return (
        f"that is host memory; the prediction, {predicted}, is for GPU memory, which could not be "
        "measured: cuda-bindings is missing, or the driver is too old for it; see `sdpack doctor`"
    )


@click.command("verify", epilog="Example: sdpack verify engines/4gb-gpu")
@click.argument("bundle", type=PATH)
@runtime_option
@json_option
@click.pass_context
def command(ctx: click.Context, bundle: Path, runtime: str | None, as_json: bool) -> None:
    """Check every file, draw an image, and compare its memory use with the prediction.

    The result is written to verified.json in the bundle. The exit code is 1 if the
    peak is more than 5 % above its prediction.
    """
    from sdpack.memory.verify import verify
    from sdpack.runtime.choose import chosen_runtime

    manifest = open_bundle(bundle)
    chosen = Runtime(runtime) if runtime else chosen_runtime(manifest)
    seen = verify(bundle, manifest, chosen)
    if as_json:
        print_json({**asdict(seen), "within": seen.within})
    else:
        click.echo(f"{len(manifest.files)} files are unchanged")
        capped = ", under a hard cap of its budget" if seen.capped else ""
        took = format_bytes(seen.measured_bytes)
        if seen.of_gpu:
            took += f" of the GPU's memory and {format_bytes(seen.host_bytes)} of the host's"
        click.echo(f"one image on {chosen} took {took}{capped}")
        if seen.predicted_bytes is None:
            click.echo(_incomparable(manifest, chosen))
        else:
            click.echo(f"predicted: {format_bytes(seen.predicted_bytes)}")
    if seen.within is False:
        ctx.exit(1)
