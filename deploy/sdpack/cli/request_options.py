"""Options shared by `build` and `study`: the candidate parts, and the images to draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sdpack.cli.catalog import catalog_option
from sdpack.cli.values import STEPS, TEXT
from sdpack.documents.profile import parse_batch, parse_sizes
from sdpack.evaluate.rules import Preference
from sdpack.pack.options import Options

Command = TypeVar("Command", bound=Callable[..., Any])


def request_options(images: int) -> Callable[[Command], Command]:
    """Add the options that `read_options` takes; `images` is the default of `--images`."""
    options = (
        catalog_option,
        click.option(
            "--model",
            type=TEXT,
            help=(
                "Diffusers folder or hub repository to build instead of a catalog; its variants "
                "are compared with its own fp32 images."
            ),
        ),
        click.option(
            "--size",
            "sizes",
            type=TEXT,
            help=(
                "Image sizes in pixels, such as 512 or 512,768x512 (width x height); the first "
                "is the bundle's default. Default: the catalog's, within the profile's."
            ),
        ),
        click.option(
            "--batch",
            type=TEXT,
            help="Images drawn at once, such as 4 or 1-4; default: the profile's.",
        ),
        click.option("--steps", type=STEPS, help="Denoising steps; default: the catalog's."),
        click.option(
            "--images",
            type=click.IntRange(min=1),
            default=images,
            show_default=True,
            help="Maximum number of images drawn with each mix.",
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


def read_options(
    profile: str,
    *,
    catalog_name: str | None,
    model: str | None,
    sizes: str | None,
    batch: str | None,
    steps: int | None,
    images: int,
    prefer: str,
) -> Options:
    """Parse the values of these options.

    Raises:
        InputError: sizes or batch cannot be read.
    """
    return Options(
        profile,
        images,
        catalog_name,
        model,
        parse_sizes(sizes) if sizes else (),
        parse_batch(batch) if batch else None,
        steps,
        Preference(prefer),
    )
