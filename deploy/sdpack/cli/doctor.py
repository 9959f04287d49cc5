"""`sdpack doctor`: shows hardware, installed packages and missing ones."""

from __future__ import annotations

import platform
from dataclasses import asdict

import click

from sdpack.cli.output import json_option, print_json, print_table
from sdpack.engines.detect import Package, gpus, jetson_model, memory_bytes, packages
from sdpack.errors import install_command
from sdpack.units import format_bytes


@click.command("doctor", epilog="Example: sdpack doctor --json")
@json_option
def command(as_json: bool) -> None:
    """Show the hardware and packages of this machine, and how to install missing ones."""
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
    ordered = sorted(found, key=lambda package: _relevance(package, bool(cards)))
    print_table(("package", "version", "needed to", "how to get it"), [_row(p) for p in ordered])


def _relevance(package: Package, has_gpu: bool) -> int:
    """Return a sort key: packages that run bundles here first, useless ones last."""
    on_jetson = platform.machine() == "aarch64"
    if package.extra == "tensorrt":
        return 0 if has_gpu and on_jetson else 3
    if package.extra in ("gpu", "tensorrt-rtx"):
        builds = package.extra == "tensorrt-rtx"  # builds engines for other machines, too
        return 0 if has_gpu else 2 if builds else 3
    if package.extra == "cpu":
        return 1 if has_gpu else 0
    return 2


def _row(package: Package) -> tuple[str, str, str, str]:
    if package.version is not None:
        return package.name, package.version, package.purpose, ""
    get = install_command(package.extra)
    if package.extra == "tensorrt" and jetson_model() is not None:
        get = "from JetPack"
    return package.name, "-", package.purpose, get
