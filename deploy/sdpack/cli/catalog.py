"""`sdpack catalog`: lists, shows, writes and checks catalogs of candidate parts."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import click

from sdpack.cli.file_options import file_options, read_file_options
from sdpack.cli.options import out_option
from sdpack.cli.output import json_option, print_json, print_table, warn
from sdpack.cli.values import STEP_COUNT, TEXT, FilePath, Finite
from sdpack.documents.catalog_files import (
    builtin_catalogs,
    catalog_file,
    located_catalog,
    write_catalog,
)
from sdpack.documents.overwrite import check_spared
from sdpack.domain.placement import TEXT_ENCODERS, Role
from sdpack.domain.precision import Runtime
from sdpack.engines.detect import require
from sdpack.errors import StoreError
from sdpack.export.single_file.options import NO_OPTIONS
from sdpack.units import format_count

CATALOG_SUFFIXES = (".yaml", ".yml")

catalog_option = click.option(
    "--catalog",
    "catalog_name",
    type=TEXT,
    help="Candidate parts: a built-in catalog's name, a YAML file or its folder; default: the zoo.",
)


named = click.argument("catalog_name", metavar="[NAME]", type=TEXT, required=False)


@click.group(
    "catalog",
    epilog="""\b
Examples:
  sdpack catalog ls                             the built-in catalogs
  sdpack catalog show sdxl                      the candidates of one
  sdpack catalog from ~/models/mine -o mine     writes a catalog of a diffusers folder
  sdpack catalog check mine
""",
)
def command() -> None:
    """List, show, make or check catalogs of candidate parts."""


@command.command(epilog="Example: sdpack catalog ls --json")
@json_option
def ls(as_json: bool) -> None:
    """List the built-in catalogs."""
    found = builtin_catalogs()
    if as_json:
        print_json([entry.catalog.model_dump(mode="json", by_alias=True) for entry in found])
        return
    rows = [
        (
            entry.catalog.name,
            str(len(entry.catalog.text_encoders)),
            str(len(entry.catalog.denoisers)),
            str(len(entry.catalog.decoders)),
            f"{entry.catalog.image_size}",
            entry.catalog.description,
        )
        for entry in found
    ]
    columns = ("catalog", "text encoders", "denoisers", "decoders", "pixels", "description")
    print_table(columns, rows, "built-in catalogs", columns[1:5])


@command.command(epilog="Example: sdpack catalog show sdxl")
@named
@json_option
def show(catalog_name: str | None, as_json: bool) -> None:
    """List the candidates of a catalog by role.

    NAME is a built-in catalog's, a YAML file or its folder; default: the zoo.
    """
    found = located_catalog(catalog_name)
    if as_json:
        print_json(found.catalog.model_dump(mode="json", by_alias=True))
        return
    roles = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)
    rows = [
        (
            role.words,
            name,
            format_count(candidate.parameters) if candidate.parameters else "",
            str(candidate.source),
            candidate.licence,
        )
        for role in roles
        for name, candidate in found.catalog.candidates(role).items()
    ]
    mixes = len(list(found.catalog.mixable()))
    title = f"{found.catalog.name}: {mixes} combinations of parts"
    columns = ("role", "candidate", "parameters", "source", "licence")
    print_table(columns, rows, title, right=("parameters",))
    for group, unused, why in found.catalog.unused():
        click.echo(f"{group}.{unused} cannot be used: {why}")


@command.command(
    "from",
    epilog="""\b
Examples:
  sdpack catalog from ~/models/mine -o mine
  sdpack catalog from owner/name -o mine.yaml --steps 30 --guidance-scale 5
  sdpack catalog from mine.safetensors -o mine --base sdxl --vae vae.safetensors
""",
)
@click.argument("model", type=TEXT)
@out_option("Folder of the catalog, or a .yaml file.", required=True)
@click.option(
    "--steps", type=STEP_COUNT, help="Denoising steps; default: the model family's usual number."
)
@click.option(
    "--guidance-scale",
    type=Finite(min=0),
    help="Guidance scale, 1 (Z-Image: 0) disables guidance; default: the family's usual scale.",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="Side of an image in pixels; default: the size the model was trained for.",
)
@click.option(
    "--without",
    "left_out",
    type=click.Choice([role.value for role in TEXT_ENCODERS]),
    multiple=True,
    help="Text encoder to leave out, such as text_encoder_3 of Stable Diffusion 3; repeatable.",
)
@file_options
@json_option
def from_model(
    model: str,
    out: Path,
    steps: int | None,
    guidance_scale: float | None,
    image_size: int | None,
    left_out: tuple[str, ...],
    as_json: bool,
    **beside: Any,
) -> None:
    """Write a catalog of MODEL: a diffusers folder, single file, or hub repository (OWNER/NAME).

    A single file (.safetensors or .gguf) is converted to a diffusers folder beside the catalog. Hub
    repositories are pinned to their current revision. A token is read only from HF_TOKEN;
    HF_HUB_OFFLINE=1 uses only local files.
    """
    require(Runtime.ONNXRUNTIME_CPU)
    from sdpack.export.adopt import Adoption, adopt
    from sdpack.export.single_file.folder import converted_beside

    file, _ = read_file_options(beside)
    written = catalog_file(out)
    check_spared([*_files_of(Path(model).expanduser()), *file.files()], [written])
    folder = converted_beside(Path(model).expanduser(), file, written, warn)
    place, file = (model, file) if folder is None else (str(folder), NO_OPTIONS)
    roles = frozenset(Role(role) for role in left_out)
    found = adopt(place, Adoption(steps, guidance_scale, image_size, roles, file), warn)
    try:
        path = write_catalog(found.catalog, out)
    except OSError as cause:
        raise StoreError(f"{out} cannot be written ({cause.strerror}); choose --out") from cause
    if as_json:
        print_json({"catalog": str(path), "name": found.catalog.name})
        return
    click.echo(f"{path} lists the parts of {model}; build with --catalog {quote(str(path))}")


def _files_of(folder: Path) -> list[Path]:
    """Return a model's single file, or its folder's files except catalogs at the top level."""
    if folder.is_file():
        return [folder]
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.parent != folder or path.suffix not in CATALOG_SUFFIXES]


@command.command(
    epilog="""\b
Examples:
  sdpack catalog convert ~/models/mine
  sdpack catalog convert mine.ckpt              writes mine.safetensors
"""
)
@click.argument("folder", metavar="PATH", type=FilePath(exists=True))
@json_option
def convert(folder: Path, as_json: bool) -> None:
    """Write .safetensors files beside pickled weights: those in a folder at PATH, or a single file.

    A pickle can run code when it is read. Only tensors are read here, and a file with anything
    else is rejected; still, convert only files from a source you trust.
    """
    require(Runtime.ONNXRUNTIME_CPU)
    from sdpack.export.pickles import convert_pickle, convert_pickles

    written = [convert_pickle(folder)] if folder.is_file() else convert_pickles(folder)
    if as_json:
        print_json([str(path) for path in written])
        return
    for path in written:
        click.echo(f"wrote {path}")
    if not written:
        click.echo(f"{folder} holds no pickled weights without .safetensors beside them")


@command.command(epilog="Example: sdpack catalog check mine/catalog.yaml")
@named
@json_option
def check(catalog_name: str | None, as_json: bool) -> None:
    """Check that every local file a catalog names exists, is undamaged and can be used.

    NAME is a built-in catalog's, a YAML file or its folder; default: the zoo.
    """
    found = located_catalog(catalog_name)
    require(Runtime.ONNXRUNTIME_CPU)
    from sdpack.pack.checks import check_catalog

    check_catalog(found)
    quality = found.catalog.quality
    prompts = {
        key: len(found.prompts(getattr(quality, key)))
        for key in ("prompts", "calibration", "samples")
    }
    unused = {f"{group}.{name}": why for group, name, why in found.catalog.unused()}
    if as_json:
        print_json({"name": found.catalog.name, "prompts": prompts, "unused": list(unused)})
        return
    counts = ", ".join(f"{count} {key}" for key, count in prompts.items())
    click.echo(f"{found.catalog.name} is complete: {counts}")
    for unused_name, why in unused.items():
        click.echo(f"{unused_name} will not be used: {why}")
