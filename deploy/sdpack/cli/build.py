"""`sdpack build`: builds the best pipeline for a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sdpack.api.making import build_bundle
from sdpack.cli.explain import best_mixes, columns, verdict
from sdpack.cli.options import out_option, profile_option
from sdpack.cli.output import (
    json_option,
    print_json,
    print_lines,
    print_table,
    progress,
    timed,
    warn,
)
from sdpack.cli.plan import show_plan
from sdpack.cli.request_options import (
    draw_on_option,
    executor_options,
    max_seconds_option,
    read_options,
    request_options,
)
from sdpack.cli.values import TEXT, ParsedText
from sdpack.documents.layout import REPORT, SAMPLES
from sdpack.domain.licences import licence_line
from sdpack.pack.options import Options, bundle_request
from sdpack.units import format_bytes, parse_duration
from sdpack.workers.executor import ExecutorKind


@click.command(
    "build",
    epilog="""\b
Examples:
  sdpack build --profile 4gb-gpu
  sdpack build -p 8gb-gpu --memory 24MiB -o engines/small
  sdpack build --profile mine.yaml --catalog mine/catalog.yaml --json
  sdpack build --profile 8gb-gpu --catalog sd15 --size 512,768x512 --batch 4
  sdpack build --profile 4gb-gpu --model ~/models/mine
  sdpack build --profile 8gb-gpu --model mine.safetensors --base sdxl --prediction v
  sdpack build --profile 8gb-gpu --catalog sd15 --within 2h --max-seconds 5
""",
)
@profile_option()
@request_options()
@max_seconds_option
@draw_on_option
@executor_options
@click.option(
    "--memory",
    type=TEXT,
    help="Maximum peak memory of the pipeline, such as 24MiB; default: the profile's.",
)
@click.option(
    "--within",
    "within_s",
    type=ParsedText(parse_duration),
    help=(
        "Time limit, such as 90s, 12m or 2h. The best bundle found until then is written, and says "
        "what was left out; the same command continues from there."
    ),
)
@out_option("Folder of the bundle; default: engines/ and the profile's name.")
@click.option(
    "--dry-run", is_flag=True, help="Only predict the cost of the build, like `sdpack plan`."
)
@json_option
@click.pass_context
@timed
def command(
    ctx: click.Context,
    /,
    profile_name: str,
    memory: str | None,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Build a bundle of the best mix of parts that fits a device.

    Builds resume after an interruption; a repeated build reuses everything.
    """
    options = replace(read_options(profile_name, **asked), download=not dry_run)
    request = bundle_request(options, memory, out, warn)
    if dry_run:
        show_plan(request, as_json, _not_planned(options))
        return
    with progress(ctx) as say:
        result = build_bundle(request, say, options.worker_options, options.within_s)
    manifest = result.manifest
    if as_json:
        print_json(manifest.model_dump(mode="json", by_alias=True))
        return
    evidence, budget = manifest.evidence, format_bytes(request.budget)
    those = f"{evidence.mixes:,} mixes that {evidence.compared}"
    title = f"for {budget}, the best of {those}; weights and peak in MiB"
    headings = columns(manifest)
    print_table(headings, best_mixes(manifest), title, headings[:-1])
    print_lines([*verdict(manifest), licence_line(manifest.licensed_parts)])
    page, samples = request.out / REPORT, request.out / SAMPLES
    click.echo(f"{request.out} holds the bundle; see {page} and {samples}")
    if not result.is_new:
        click.echo("nothing has changed since it was built; remove the folder to build it again")


def _not_planned(options: Options) -> list[str]:
    """The options given to a dry run that its prediction does not depend on."""
    given = {
        "--within": options.within_s is not None,
        "--workers": options.workers is not None,
        "--executor": options.executor is not ExecutorKind.LOCAL,
    }
    return [name for name, is_given in given.items() if is_given]
