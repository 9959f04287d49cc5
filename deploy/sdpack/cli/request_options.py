"""What `build` and `study` are both asked: which parts, and which pictures they are judged by."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdpack.cli.catalog import catalog_option, located
from sdpack.cli.output import warn
from sdpack.cli.require import require, require_charts
from sdpack.cli.values import STEPS, TEXT
from sdpack.documents.catalog import LocatedCatalog
from sdpack.documents.profile import Profile, parse_batch, parse_sizes
from sdpack.errors import CatalogError, InputError

if TYPE_CHECKING:
    from sdpack.pack.request import BuildRequest

Command = TypeVar("Command", bound=Callable[..., Any])


def request_options(images: int) -> Callable[[Command], Command]:
    """The options that `build_request` takes; `images` is the usual number."""
    options = (
        catalog_option,
        click.option(
            "--model",
            type=TEXT,
            help=(
                "Diffusers folder or hub repository to build instead of a catalog; its variants "
                "are compared with its own fp32."
            ),
        ),
        click.option(
            "--size",
            "sizes",
            type=TEXT,
            help=(
                "Picture sizes in pixels, such as 512 or 512,768x512 (width x height); the first "
                "is the bundle's default. Default: the catalog's, within the profile's."
            ),
        ),
        click.option(
            "--batch",
            type=TEXT,
            help="Pictures drawn at once, such as 4 or 1-4; default: the profile's.",
        ),
        click.option("--steps", type=STEPS, help="Denoising steps; default: the catalog's."),
        click.option(
            "--images",
            type=click.IntRange(min=1),
            default=images,
            show_default=True,
            help="Maximum number of pictures drawn with each mix.",
        ),
        click.option(
            "--prefer",
            type=click.Choice(["quality", "speed", "memory"]),
            default="quality",
            show_default=True,
            help=(
                "Criterion for choosing among mixes shown equal to the best; speed is measured on "
                "this machine. speed and memory also accept a comparison that is still open, "
                "within the indifference."
            ),
        ),
    )

    def with_options(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


def build_request(
    profile: Profile,
    out: Path,
    budget: int | None,
    *,
    catalog_name: str | None,
    model: str | None,
    sizes: str | None,
    batch: str | None,
    steps: int | None,
    images: int,
    prefer: str,
) -> BuildRequest:
    """The order these options give, once all it needs is seen to be installed.

    Raises:
        MissingPackageError: something is not.
        CatalogError: both a catalog and a model are given, or one is wrong.
        InputError: sizes or batch cannot be read, or nothing can be written into `out`.
    """
    if model is not None and catalog_name is not None:
        raise CatalogError("give --model or --catalog, not both")
    check_writable(out)
    require(profile.runtime)
    require_charts()
    catalog = located(catalog_name) if model is None else _adopted(model)
    from sdpack.evaluate.rules import Preference, Rules
    from sdpack.pack.request import BuildRequest

    return BuildRequest(
        profile,
        catalog,
        out,
        budget,
        Rules(most=images, prefer=Preference(prefer)),
        parse_sizes(sizes) if sizes else (),
        parse_batch(batch) if batch else None,
        steps,
    )


def check_writable(folder: Path) -> None:
    """See that a folder can be written before hours of work go into it.

    Raises:
        InputError: a file is in its place or above it, or it is read-only.
    """
    place = folder.absolute()
    there = next(path for path in (place, *place.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(f"{folder} cannot be written: {there} is not a folder; choose --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: {there} is read-only; choose --out")


def _adopted(model: str) -> LocatedCatalog:
    from sdpack.export.adopt import adopt

    return adopt(model, warn=warn)


def files_read(request: BuildRequest, profile_name: str, catalog_name: str | None) -> list[Path]:
    """What a build or a study reads that a user may have given: none of it is to be overwritten.

    Args:
        profile_name, catalog_name: as they were given; names that are no files are left out.
    """
    given = [Path(name) for name in (profile_name, catalog_name) if name]
    return [*request.located.files(), *(path for path in given if path.is_file())]
