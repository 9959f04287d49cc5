"""What each budget buys: python -m benchmarks.budgets

Builds nothing but what a build would: at each budget the mixes that fit are raced, and the table
tells the winner, how its bytes are shared out, and its quality over the same prompts for all.
Beside it stands the difference to the next smaller budget's winner, prompt by prompt.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.documents.catalog_files import default_catalog, read_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.estimate import mean_estimate
from sdpack.errors import InfeasibleError
from sdpack.evaluate.rules import Rules
from sdpack.pack.build import buildable, fitting, opened
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.selection.selection import Selection
from sdpack.units import format_bytes, parse_bytes

HEADS = (
    "budget",
    "winner",
    "encoder",
    "denoiser",
    "decoder",
    "predicted peak",
    "placement",
    "quality",
    "against the smaller budget",
)


@click.command()
@click.option("--profile", "name", default="4gb-gpu", show_default=True)
@click.option("--catalog", "path", type=click.Path(path_type=Path), help="Default: the zoo.")
@click.option("--budgets", default="8MiB,12MiB,16MiB,20MiB,24MiB,32MiB,64MiB", show_default=True)
@click.option("--prompts", default=96, show_default=True, help="Of every mix, at most.")
def main(name: str, path: Path | None, budgets: str, prompts: int) -> None:
    """Print one table."""
    catalog = default_catalog() if path is None else read_catalog(path)
    request = BuildRequest(find_profile(name), catalog, Path("unused"), rules=Rules(most=prompts))
    console = Console(width=200)
    table = Table(*HEADS, title=f"the best mix at each budget, {name}, {prompts} prompts")
    before = None
    with opened(request, lambda words: console.log(words)) as builder:
        possible, footprints = buildable(builder), Footprints(builder)
        for budget in budgets.split(","):
            try:
                fitted = fitting(footprints, possible, parse_bytes(budget))
            except InfeasibleError as error:
                table.add_row(budget, f"none; {format_bytes(error.smallest_bytes)} is the least")
                continue
            evaluator = MixEvaluator(builder, possible, fitted, lambda words: console.log(words))
            winner = fitted[Selection(evaluator).run().race.winner]
            scores = evaluator.scores([winner.mix], range(prompts))[0]
            apart = "" if before is None else mean_estimate(scores - before).to(3)
            before = scores
            weights = [
                footprints.of(variant, winner.placement).weight_bytes
                for variant in winner.mix.variants
            ]
            table.add_row(
                budget,
                str(winner.mix),
                *(f"{weight / sum(weights):.0%}" for weight in weights),
                format_bytes(winner.peak.bytes),
                str(winner.placement),
                str(mean_estimate(np.asarray(scores))),
                apart,
            )
    console.print(table)
    console.print(
        f"sdpack {version('sdpack')}, onnxruntime {version('onnxruntime')}, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
