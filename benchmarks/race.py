"""The race against looking at everything, at several budgets: python -m benchmarks.race

At each budget every mix that fits draws every prompt; the table sets the best of them beside the
race's winner, with the difference over the same prompts, and the share of pictures the race took.
What is drawn once is kept, so the race costs nothing extra here; its pictures are counted all the
same.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sdpack.documents.catalog_files import default_catalog, read_catalog
from sdpack.documents.profile import find_profile
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import Rules
from sdpack.pack.build import buildable, fitting, opened
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection
from sdpack.units import format_bytes, parse_bytes


@click.command()
@click.option("--profile", "name", default="4gb-gpu", show_default=True)
@click.option("--catalog", "path", type=click.Path(path_type=Path), help="Default: the zoo.")
@click.option("--budgets", default="16MiB,24MiB,32MiB,48MiB,64MiB", show_default=True)
@click.option("--prompts", default=64, show_default=True, help="Of every mix.")
def main(name: str, path: Path | None, budgets: str, prompts: int) -> None:
    """Print one table."""
    catalog = default_catalog() if path is None else read_catalog(path)
    request = BuildRequest(find_profile(name), catalog, Path("unused"), rules=Rules(most=prompts))
    console = Console()
    table = Table(title=f"race and exhaustive search, {name}, {prompts} prompts")
    heads = ("budget", "mixes", "race's winner", "best of all", "difference", "pictures", "share")
    for head in heads:
        table.add_column(head)
    with opened(request, lambda words: console.log(words)) as builder:
        possible = buildable(builder)
        footprints = Footprints(builder)
        for budget in budgets.split(","):
            fitted = fitting(footprints, possible, parse_bytes(budget))
            evaluator = MixEvaluator(builder, possible, fitted, lambda words: console.log(words))
            selected = Selection(evaluator).run()
            outcome = selected.race
            scores = evaluator.scores([f.mix for f in fitted], range(prompts))
            best = int(scores.mean(axis=1).argmax())
            apart = interval(scores[outcome.winner] - scores[best], 0.05)
            table.add_row(
                format_bytes(parse_bytes(budget)),
                str(len(fitted)),
                str(fitted[outcome.winner].mix),
                str(fitted[best].mix),
                f"{apart[0]:+.3f} [{apart[1]:+.3f}, {apart[2]:+.3f}]",
                f"{selected.pictures:,} of {scores.size:,}",
                f"{selected.pictures / scores.size:.0%}",
            )
    console.print(table)
    console.print(
        f"sdpack {version('sdpack')}, onnxruntime {version('onnxruntime')}, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
