"""`sdpack compare`: compares two bundles."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sdpack.cli.options import out_option
from sdpack.cli.output import json_option, print_json, print_lines, print_table
from sdpack.cli.values import PATH
from sdpack.documents.bundle import bundle_files
from sdpack.documents.overwrite import check_spared
from sdpack.engines.detect import require_charts

EPILOG = """\b
Examples:
  sdpack compare engines/4gb-gpu engines/small           writes compare.html
  sdpack compare engines/4gb-gpu engines/small --json
  sdpack compare engines/4gb-gpu engines/small --brief   changes and their cost in one line
"""


@click.command("compare", epilog=EPILOG)
@click.argument("first", metavar="BUNDLE", type=PATH)
@click.argument("second", metavar="BUNDLE", type=PATH)
@out_option("HTML page to write.", Path("compare.html"))
@click.option("--brief", is_flag=True, help="Print one line, and write no page.")
@json_option
def command(first: Path, second: Path, out: Path, brief: bool, as_json: bool) -> None:
    """Compare two bundles: scores paired by prompt, images, sizes.

    The command uses the measurements of the two builds, on prompts that both drew from the same
    noise. It draws no new images.
    """
    require_charts()
    from sdpack.report.compare import compare, write_comparison

    check_spared([*bundle_files(first), *bundle_files(second)], [] if brief else [out])
    found = compare(first, second)
    if brief:
        click.echo(found.summary)
        return
    write_comparison(found, (first, second), out)
    names = found.names
    if as_json:
        print_json(
            {
                "first": names[0],
                "second": names[1],
                "metric": found.metric,
                "difference": asdict(found.difference),
                "prompts": found.prompts,
                "images": len(found.images),
                "verdict": found.verdict,
                "caveat": found.caveat,
                "rows": [list(row) for row in found.rows],
                "page": str(out),
            }
        )
        return
    print_table(("", *names), found.rows)
    print_lines(filter(None, [found.verdict, found.caveat, f"{out} shows the images"]))
