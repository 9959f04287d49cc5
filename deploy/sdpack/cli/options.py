"""Options that several commands have, each spelt the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def out_option(
    help_text: str, default: Path | None = None, *, required: bool = False
) -> Callable[[Command], Command]:
    """`-o`, `--out`: the path to write, as `out: Path`; None where there is no default."""
    return click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path),
        default=default,
        show_default=default is not None,
        required=required,
        help=help_text,
    )


def profile_option(default: str | None = None) -> Callable[[Command], Command]:
    """`-p`, `--profile`: a device profile, as `profile_name: str`; required without a default."""
    return click.option(
        "-p",
        "--profile",
        "profile_name",
        default=default,
        show_default=default is not None,
        required=default is None,
        help="Device profile: a name that `sdpack profiles` lists, or a YAML file.",
    )
