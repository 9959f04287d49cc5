"""`sdpack doctor`: what this machine can do, and what it lacks."""

from __future__ import annotations

import platform
from dataclasses import asdict

import click

from sdpack.cli.output import json_option, print_json, print_table
from sdpack.detect import Package, gpus, memory_bytes, packages
from sdpack.units import format_bytes


@click.command("doctor", epilog="Example: sdpack doctor --json")
@json_option
def command(as_json: bool) -> None:
    """Show what this machine can do, what is missing, and how to install it."""
    found, cards, memory = packages(), gpus(), memory_bytes()
    if as_json:
        print_json(
            {
                "python": platform.python_version(),
                "machine": platform.machine(),
                "memory_bytes": memory,
                "gpus": [asdict(card) for card in cards],
                "packages": [asdict(package) for package in found],
            }
        )
        return
    click.echo(
        f"Python {platform.python_version()} on {platform.machine()}, {format_bytes(memory)} memory"
    )
    for card in cards:
        click.echo(
            f"{card.name}: {format_bytes(card.memory_bytes)}, compute capability "
            f"{card.compute_capability}, driver {card.driver}"
        )
    if not cards:
        click.echo(
            "No NVIDIA GPU: TensorRT-RTX engines can be built here and run elsewhere; "
            "quality is measured on the CPU"
        )
    print_table(("package", "version", "what for", "how to get it"), [_row(p) for p in found])


def _row(package: Package) -> tuple[str, str, str, str]:
    if package.version is not None:
        return package.name, package.version, package.purpose, ""
    get = f"pip install 'sdpack[{package.extra}]'" if package.extra else "from the device's maker"
    return package.name, "-", package.purpose, get
