"""`sdpack --version`: which sdpack, and what it runs on."""

from __future__ import annotations

import platform

import click

from sdpack.version import installed_version

# Several lines where one package has several names in the index; only what is installed is shown.
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
    """One line for sdpack, Python, each package that is installed, and the system.

    Versions come from the packages' metadata: none is imported, as that alone takes seconds.
    """
    found = [("sdpack", installed_version("sdpack") or "unknown (not installed)")]
    found.append(("python", platform.python_version()))
    found += [(name, installed) for name in PACKAGES if (installed := installed_version(name))]
    found.append(("platform", platform.platform()))
    return [f"{name} {number}" for name, number in found]


def show_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the lines and end, where the option was given."""
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
