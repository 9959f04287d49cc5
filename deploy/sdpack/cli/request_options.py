"""The options that `build`, `plan` and `study` share: parts, images and the choice of a mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sdpack.cli.catalog import catalog_option
from sdpack.cli.file_options import file_options, read_file_options
from sdpack.cli.options import Command
from sdpack.cli.values import STEP_COUNT, TEXT, Finite, ParsedText
from sdpack.documents.profile import parse_batch, parse_sizes
from sdpack.domain.category_weights import EXAMPLE, parse_weights
from sdpack.engines.drawing import DrawOn
from sdpack.evaluate.rules import Preference
from sdpack.pack.options import BUILD_IMAGES, LARGE_BUILD_IMAGES, MOST_WORKERS, Options
from sdpack.workers.executor import ExecutorKind

model_option = click.option(
    "--model",
    type=TEXT,
    help=(
        "Diffusers folder, single file (.safetensors, .gguf) or hub repository to build instead of "
        "a catalog; images of its variants are compared with its own in fp32."
    ),
)
sizes_option = click.option(
    "--size",
    "sizes",
    type=ParsedText(parse_sizes),
    default=(),
    help=(
        "Image sizes in pixels, such as 512 or 512,768x512 (width x height); the first "
        "is the bundle's default. Default: the catalog's sizes that the profile allows."
    ),
)
batch_option = click.option(
    "--batch",
    type=ParsedText(parse_batch),
    help="Batch sizes, such as 4 or 1-4; default: the profile's.",
)
steps_option = click.option(
    "--steps",
    type=STEP_COUNT,
    help="Denoising steps; default: the catalog's, which may offer several to choose from.",
)
max_seconds_option = click.option(
    "--max-seconds",
    type=Finite(min=0, min_open=True),
    help=(
        "Maximum seconds per image: measured if the bundle runs on a CPU or on the GPU that draws, "
        "predicted otherwise. Default: the profile's limit, if any."
    ),
)
prefer_option = click.option(
    "--prefer",
    type=click.Choice(["quality", "speed", "memory"]),
    default="quality",
    show_default=True,
    callback=lambda _context, _option, name: Preference(name),
    help=(
        "Criterion for the choice among mixes shown equal to the best; speed is measured on "
        "this machine. `speed` and `memory` also accept a mix whose comparison with the best is "
        "still open, if its mean is lower by less than the indifference."
    ),
)


weigh_option = click.option(
    "--weigh",
    "weights",
    type=ParsedText(parse_weights),
    default={},
    help=(
        f"How much categories of prompts count, such as {EXAMPLE}; others count 1. A category "
        "that counts 0 is not drawn."
    ),
)
draw_on_option = click.option(
    "--draw-on",
    type=click.Choice([place.value for place in DrawOn]),
    default=DrawOn.CPU.value,
    show_default=True,
    callback=lambda _context, _option, name: DrawOn(name),
    help="Where images are generated to compare mixes; auto uses a GPU if there is one.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    help="Processes that export, calibrate and draw; default: as many as cores and memory allow.",
)
executor_option = click.option(
    "--executor",
    type=click.Choice([kind.value for kind in ExecutorKind]),
    default=ExecutorKind.LOCAL.value,
    show_default=True,
    callback=lambda _context, _option, name: ExecutorKind(name),
    help="Where these processes run: on this machine, or on a Ray cluster.",
)
address_option = click.option(
    "--address",
    type=TEXT,
    help=(
        "Address of the Ray cluster, such as ray://head:10001, or auto for the cluster of this "
        "machine; default: one is started on this machine."
    ),
)


def executor_options(command: Command) -> Command:
    """`--workers`, `--executor` and `--address`."""
    for option in (address_option, executor_option, workers_option):
        command = option(command)
    return command


def images_option(default: int | None) -> Callable[[Command], Command]:
    """`--images`, a positive number; without a default, None means what suits a build."""
    usual = f"{BUILD_IMAGES}; {LARGE_BUILD_IMAGES} if a CPU draws large images"
    return click.option(
        "--images",
        type=click.IntRange(min=1),
        default=default,
        show_default=usual if default is None else True,
        help="Maximum number of images drawn with each mix. If these are more than the prompts, "
        "prompts are drawn again from other noise, up to eight times each.",
    )


def request_options(images: int | None = None) -> Callable[[Command], Command]:
    """The options that `read_options` takes; `images` is the default of `--images`."""

    def with_options(command: Command) -> Command:
        for option in (
            weigh_option,
            prefer_option,
            images_option(images),
            steps_option,
            batch_option,
            sizes_option,
            file_options,
            model_option,
            catalog_option,
        ):
            command = option(command)
        return command

    return with_options


def read_options(profile: str, catalog_name: str | None, **others: Any) -> Options:
    """The values of these options, the others by the names of the fields of `Options`."""
    file, others = read_file_options(others)
    return Options(profile, catalog=catalog_name, file=file, **others)
