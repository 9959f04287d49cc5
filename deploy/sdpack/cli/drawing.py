"""Options of commands that draw with a bundle: runtime and memory."""

from __future__ import annotations

import click

from sdpack.cli.options import Command
from sdpack.domain.precision import Runtime


def runtime_option(command: Command) -> Command:
    """`--runtime`: the name of a runtime, or None."""
    option = click.option(
        "--runtime",
        type=click.Choice([runtime.value for runtime in Runtime]),
        help="Runtime that draws; default: the profile's if this machine has it, else the CPU.",
    )
    return option(command)


def least_memory_option(command: Command) -> Command:
    """`--least-memory`: a flag."""
    option = click.option(
        "--least-memory",
        is_flag=True,
        help="Release memory immediately (slower); default if memory is short.",
    )
    return option(command)
