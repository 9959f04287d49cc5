"""Options of `build`, `plan`, `study` and `catalog from` on a model in a single file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from sdpack.cli.options import Command
from sdpack.cli.values import FilePath
from sdpack.export.single_file.options import BASES, FileOptions, Prediction

base_option = click.option(
    "--base",
    type=click.Choice(BASES),
    help="The model that a single file was trained from; default: what its keys tell.",
)
prediction_option = click.option(
    "--prediction",
    type=click.Choice([prediction.value for prediction in Prediction]),
    callback=lambda _context, _option, name: None if name is None else Prediction(name),
    help="What a single file's denoiser predicts; default: what its keys tell, or its base's.",
)
with_option = click.option(
    "--with",
    "with_folder",
    type=FilePath(exists=True, file_okay=False),
    help="Diffusers folder with parts, tokenizers and configs that a single file lacks.",
)
vae_option = click.option(
    "--vae",
    type=FilePath(exists=True),
    help="File or folder of a VAE to use in place of a single file's.",
)
embedding_option = click.option(
    "--embedding",
    "embeddings",
    type=FilePath(exists=True, dir_okay=False),
    multiple=True,
    help="Textual inversion (.safetensors) to add to a single file's model; repeatable.",
)
FIELDS = ("base", "prediction", "with_folder", "vae", "embeddings")


def file_options(command: Command) -> Command:
    """`--base`, `--prediction`, `--with`, `--vae` and `--embedding`."""
    for option in (embedding_option, vae_option, with_option, prediction_option, base_option):
        command = option(command)
    return command


def read_file_options(given: Mapping[str, Any]) -> tuple[FileOptions, dict[str, Any]]:
    """Return the values of these options, and those of all others."""
    base, prediction, folder, vae, embeddings = (given[name] for name in FIELDS)
    others = {name: value for name, value in given.items() if name not in FIELDS}
    return FileOptions(base, prediction, folder, vae, tuple(embeddings)), others
