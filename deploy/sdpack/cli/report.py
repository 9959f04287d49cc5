"""`sdpack report`: draws charts of a build or a study."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sdpack.cli.options import out_option
from sdpack.cli.output import json_option, print_json, print_lines, print_table
from sdpack.cli.values import PATH, TEXT
from sdpack.documents.bundle import bundle_files
from sdpack.documents.overwrite import check_spared
from sdpack.engines.detect import require_charts
from sdpack.units import format_bytes

EPILOG = """\b
Examples:
  sdpack report engines/4gb-gpu                       engines/4gb-gpu/report.html and charts/
  sdpack report engines/4gb-gpu --out report.html
  sdpack report ~/.cache/sdpack/ledger.sqlite --build 4gb-gpu
  sdpack report engines/4gb-gpu --json > points.json
  sdpack report study                                 the page of a study, from its ledger
"""


@click.command("report", epilog=EPILOG)
@click.argument("source", metavar="BUNDLE|LEDGER|STUDY", type=PATH)
@click.option(
    "--build",
    "name",
    type=TEXT,
    help="Name of the build, if a ledger holds several; default: the last.",
)
@out_option("HTML page to write; default: report.html in the bundle.")
@json_option
def command(source: Path, name: str | None, out: Path | None, as_json: bool) -> None:
    """Draw the charts of a build from its ledger, as a page that works offline and as PNGs.

    If the ledger holds a study and no build, the charts are those of the study.
    """
    require_charts()
    check_spared(bundle_files(source), [] if out is None else [out])
    from sdpack.documents.record import STUDY
    from sdpack.report.build_page import summary, write_report
    from sdpack.report.charts import point_rows
    from sdpack.report.points import kinds

    if name is None and kinds(source) == {STUDY}:
        _report_study(source, out, as_json)
        return
    build, path = write_report(source, out, name)
    if as_json:
        print_json(
            {
                "build": build.record.name,
                "metric": build.record.metric,
                "page": str(path),
                "mixes": point_rows(build)[::-1],
                "precisions": [asdict(cost) for cost in build.costs],
            }
        )
        return
    columns = ("part", "precision", "weights", "change", "images")
    rows = [
        (
            f"{cost.role.words} {cost.candidate}",
            cost.precision,
            format_bytes(cost.weight_bytes),
            cost.difference.signed(),
            str(cost.pictures),
        )
        for cost in build.costs
    ]
    if rows:
        print_table(columns, rows, "what each precision costs", columns[2:])
    print_lines(summary(build))
    click.echo(f"{path} holds the charts")


def _report_study(source: Path, out: Path | None, as_json: bool) -> None:
    from sdpack.report.study_files import as_json as study_json
    from sdpack.report.study_finding import finding
    from sdpack.report.study_page import PAGE, write_study

    page = out or (source if source.is_dir() else Path()) / PAGE
    found = write_study(source, page)
    if as_json:
        print_json({**study_json(found), "page": str(page)})
        return
    print_lines([*finding(found), f"{page} holds the charts"])
