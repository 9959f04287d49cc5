"""Options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from sdpack.cli.values import PATH, TEXT

Command = TypeVar("Command", bound=Callable[..., Any])


def out_option(
    help_text: str, default: Path | None = None, *, required: bool = False
) -> Callable[[Command], Command]:
    """`-o`, `--out`: the path to write, as `out: Path`, or None without a default."""
    out = partial(click.option, "-o", "--out", type=PATH, help=help_text)
    if default is None:  # default=None would satisfy even a required option
        return out(required=required)
    return out(default=default, show_default=True)


def profile_option(default: str | None = None) -> Callable[[Command], Command]:
    """`-p`, `--profile`: a device profile, as `profile_name: str`; required if no default."""
    help_text = "Device profile: a name that `sdpack profiles` lists, or a YAML file."
    profile = partial(click.option, "-p", "--profile", "profile_name", type=TEXT, help=help_text)
    if default is None:
        return profile(required=True)
    return profile(default=default, show_default=True)
