"""`sdpack export`: writes a bundle for another server."""

from __future__ import annotations

from pathlib import Path

import click

from sdpack.cli.output import json_option, print_json, timed
from sdpack.cli.values import PATH
from sdpack.documents.bundle import bundle_files, open_bundle
from sdpack.documents.overwrite import check_spared
from sdpack.errors import MissingPackageError


@click.group(
    "export",
    epilog="""\b
Examples:
  sdpack export triton engines/4gb-gpu models   a repository for `tritonserver --model-repository`
""",
)
def command() -> None:
    """Write a bundle in the format of another server."""


@command.command(
    epilog="""\b
Examples:
  sdpack export triton engines/4gb-gpu models
  tritonserver --model-repository models        needs sdpack in Triton's Python
""",
)
@click.argument("bundle", type=PATH)
@click.argument("folder", type=PATH)
@json_option
@timed
def triton(bundle: Path, folder: Path, as_json: bool) -> None:
    """Write BUNDLE into FOLDER as a model repository for NVIDIA's Triton Inference Server."""
    try:
        from sdpack.serve.triton.repository import export_repository
    except ModuleNotFoundError as cause:
        raise MissingPackageError(cause.name or "onnx", "build", "exporting a bundle") from cause

    check_spared(bundle_files(bundle), [folder])
    names = export_repository(bundle, open_bundle(bundle), folder)
    if as_json:
        print_json({"repository": str(folder), "models": names})
        return
    click.echo(f"{folder}: send requests to {names[0]}, which calls {', '.join(names[1:])}")
