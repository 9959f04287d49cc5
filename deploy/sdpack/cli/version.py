"""`sdpack --version`: versions of sdpack and its dependencies."""

from __future__ import annotations

import platform

import click

from sdpack.version import installed_version

# Some packages have several names in the index; only installed ones are shown.
PACKAGES = (
    "numpy",
    "tokenizers",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt-rtx",
    "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "onnx",
    "torch",
    "diffusers",
    "transformers",
)


def version_lines() -> list[str]:
    """Return one line each for sdpack, Python, every installed package, and the system.

    Versions come from package metadata, because importing the packages would take seconds.
    """
    found = [("sdpack", installed_version("sdpack") or "unknown (not installed)")]
    found.append(("python", platform.python_version()))
    found += [(name, installed) for name in PACKAGES if (installed := installed_version(name))]
    found.append(("platform", platform.platform()))
    return [f"{name} {number}" for name, number in found]


def show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the versions and exit, if the option is given."""
    if wanted and not ctx.resilient_parsing:
        click.echo("\n".join(version_lines()))
        ctx.exit()


version_option = click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the versions of sdpack and its dependencies, and exit.",
)
