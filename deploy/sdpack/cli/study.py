"""`sdpack study`: the best mix at each of several budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdpack.cli.options import out_option, profile_option
from sdpack.cli.output import json_option, print_json, print_lines, print_table, progress, timed
from sdpack.cli.request_options import build_request, files_read, request_options
from sdpack.cli.values import TEXT
from sdpack.documents.overwrite import check_spared
from sdpack.documents.profile import find_profile
from sdpack.errors import InputError, ProfileError
from sdpack.units import format_bytes, parse_bytes

EPILOG = """\b
Examples:
  sdpack study --budgets 8MiB:64MiB:8                  eight budgets, evenly spaced
  sdpack study --budgets 1GiB,1.5GiB,2GiB --profile 4gb-gpu --catalog sd15
  sdpack study --budgets 4gb-gpu,8gb-gpu --catalog sd15
  sdpack study --budgets 1GiB:3GiB:5 --model ~/models/mine --size 512

Studies resume after an interruption; a repeated study draws nothing.
"""
MOST = 64  # budgets
WRITTEN = ("ledger.jsonl", "study.html", "points.csv", "points.json", "charts")


@click.command("study", epilog=EPILOG)
@click.option(
    "--budgets",
    type=TEXT,
    required=True,
    help="Memory budgets: FIRST:LAST:COUNT, or sizes or profile names separated by commas.",
)
@profile_option(default="4gb-gpu")
@request_options(images=64)
@out_option("Folder of the page, the charts and the points.", Path("study"))
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

    Every picture is drawn once, however many budgets use it. Writes study.html with its charts as
    PNGs, points.csv, points.json and ledger.jsonl.
    """
    asked = parse_budgets(budgets)
    request = build_request(find_profile(profile_name), out, max(asked), **of_order)
    written = [out / name for name in WRITTEN]
    check_spared(files_read(request, profile_name, of_order["catalog_name"]), written)
    from sdpack.documents.bundle import LEDGER
    from sdpack.pack.study import study
    from sdpack.report.study_page import PAGE, write_study
    from sdpack.report.study_points import as_json as machine_words
    from sdpack.report.study_points import finding

    with progress(ctx) as say:
        done = study(request, asked, say)
        say("drawing the charts")
        found = write_study(out / LEDGER, out / PAGE)
    if as_json:
        print_json({**machine_words(found), "drawn": done.pictures, "exhaustive": done.exhaustive})
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
            f"{done.pictures:,} pictures were drawn; drawing every mix in full would take "
            f"{done.exhaustive:,}. {out / PAGE} holds the charts."
        ]
    )


def parse_budgets(text: str) -> tuple[int, ...]:
    """Bytes of "8MiB:64MiB:8", "16MiB,24MiB" or "4gb-gpu,8gb-gpu", ascending.

    Raises:
        InputError: it is none of these, or more than `MOST`.
    """
    if ":" in text:
        return _evenly(text)
    found = tuple(sorted({_budget(word.strip()) for word in text.split(",")}))
    if len(found) > MOST:
        raise InputError(f"{len(found)} budgets are too many for one study; give at most {MOST}")
    return found


def _evenly(text: str) -> tuple[int, ...]:
    words = text.split(":")
    if len(words) != 3 or not words[2].strip().isdecimal():
        raise InputError(f"{text!r} is not a range of budgets; write it like 8MiB:64MiB:8")
    first, last, count = parse_bytes(words[0]), parse_bytes(words[1]), int(words[2])
    if not 2 <= count <= MOST or first >= last:
        raise InputError(
            f"{text!r}: give the smaller budget first, and 2 to {MOST} of them, like 8MiB:64MiB:8"
        )
    step = (last - first) / (count - 1)
    return tuple(sorted({round(first + step * number) for number in range(count)}))


def _budget(word: str) -> int:
    try:
        return parse_bytes(word)
    except InputError as no_size:
        try:
            return find_profile(word).budget_bytes
        except ProfileError as no_profile:
            raise InputError(
                f"unknown budget {word!r}: neither a size like 24MiB nor a profile ({no_profile})"
            ) from no_size
