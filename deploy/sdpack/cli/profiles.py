"""`sdpack profiles`: lists, shows and writes device profiles."""

from __future__ import annotations

import click

from sdpack.cli.output import json_option, print_json, print_table
from sdpack.cli.values import TEXT
from sdpack.documents.profile import Profile, find_profile, profile_path, shipped_profiles
from sdpack.engines.detect import detected_profile
from sdpack.units import format_bytes


@click.group(
    "profiles",
    invoke_without_command=True,
    epilog="""\b
Examples:
  sdpack profiles
  sdpack profiles show 4gb-gpu > mine.yaml
  sdpack profiles detect > mine.yaml
""",
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the device profiles, show one, or write one for this machine."""
    if ctx.invoked_subcommand is not None:
        return
    found = shipped_profiles()
    if as_json:
        print_json([profile.model_dump(mode="json", by_alias=True) for profile in found])
        return
    columns = ("profile", "memory", "for a pipeline", "runtime", "target", "precisions", "device")
    print_table(columns, [_row(p) for p in found], right=("memory", "for a pipeline"))


def _row(profile: Profile) -> tuple[str, ...]:
    return (
        profile.name,
        format_bytes(profile.memory.total),
        format_bytes(profile.budget_bytes),
        profile.runtime,
        profile.sm or "CPU",
        " ".join(profile.allowed_precisions),
        profile.description,
    )


@command.command(epilog="Example: sdpack profiles show 4gb-gpu > mine.yaml")
@click.argument("name", type=TEXT)
@json_option
def show(name: str, as_json: bool) -> None:
    """Check and print a profile: a shipped one, or your own file."""
    profile = find_profile(name)
    if as_json:
        print_json(profile.model_dump(mode="json", by_alias=True))
        return
    click.echo(profile_path(name).read_text(), nl=False)


@command.command(epilog="Example: sdpack profiles detect > mine.yaml")
def detect() -> None:
    """Print a profile of this machine, with comments on measured and assumed values."""
    from sdpack.engines.device_memory import context_bytes

    click.echo(detected_profile(context_bytes), nl=False)
