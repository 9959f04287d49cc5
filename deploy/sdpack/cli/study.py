"""`sdpack study`: finds the best mix at each of several budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdpack.api.making import study_budgets
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
from sdpack.cli.request_options import (
    draw_on_option,
    executor_options,
    max_seconds_option,
    read_options,
    request_options,
)
from sdpack.cli.values import TEXT
from sdpack.documents.profile import parse_budgets
from sdpack.pack.options import STUDY_FOLDER, STUDY_IMAGES, STUDY_PROFILE, study_request
from sdpack.units import format_bytes

EPILOG = """\b
Examples:
  sdpack study --budgets 8MiB:64MiB:8                  eight budgets, evenly spaced
  sdpack study --budgets 1GiB,1.5GiB,2GiB --profile 4gb-gpu --catalog sd15
  sdpack study --budgets 4gb-gpu,8gb-gpu --catalog sd15
  sdpack study --budgets 1GiB:3GiB:5 --model ~/models/mine --size 512

Studies resume after an interruption; a repeated study draws no images.
"""


@click.command("study", epilog=EPILOG)
@click.option(
    "--budgets",
    type=TEXT,
    required=True,
    help="Memory budgets: FIRST:LAST:COUNT, or sizes or profile names separated by commas.",
)
@profile_option(default=STUDY_PROFILE)
@request_options(images=STUDY_IMAGES)
@max_seconds_option
@draw_on_option
@executor_options
@out_option("Folder of the page, the charts and the points.", Path(STUDY_FOLDER))
@json_option
@click.pass_context
@timed
def command(
    ctx: click.Context,
    /,
    budgets: str,
    profile_name: str,
    out: Path,
    as_json: bool,
    **of_order: Any,
) -> None:
    """Find the best mix at each of several memory budgets, and compare it with the others.

    Every image is drawn only once, even if several budgets use it. The command writes study.html,
    its charts as PNGs, points.csv, points.json and ledger.jsonl.
    """
    asked = parse_budgets(budgets)
    options = read_options(profile_name, **of_order)
    request = study_request(options, asked, out, warn)
    from sdpack.report.study_files import as_json as study_json
    from sdpack.report.study_finding import finding
    from sdpack.report.study_page import PAGE

    with progress(ctx) as say:
        done, found = study_budgets(request, asked, say, options.worker_options)
    if as_json:
        print_json({**study_json(found), "drawn": done.pictures, "exhaustive": done.exhaustive})
        return
    columns = ("budget", "which", "mix", "peak", "quality, 95 %", "vs. best, 95 %", "shares, %")
    rows = [
        (
            format_bytes(p.budget_bytes),
            p.why,
            p.mix,
            format_bytes(p.peak_bytes),
            str(p.own),
            p.difference.signed() if p.difference.value or p.difference.high else "",
            " / ".join(f"{100 * share:.0f}" for share in p.shares.values()),
        )
        for p in found.points
        if not p.by_encoder
    ]
    print_table(columns, rows, found.record.metric, ("budget", "peak"))
    print_lines(finding(found))
    print_lines(
        [
            f"{done.pictures:,} images were drawn; drawing every mix in full would take "
            f"{done.exhaustive:,}. {out / PAGE} holds the charts."
        ]
    )
