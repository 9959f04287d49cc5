"""The best mix at each budget: python -m benchmarks.budget_sweep

At each budget the mixes that fit race as in a build. The table shows the winner, the shares of its
parts in its bytes, its quality on the same prompts for all budgets, and its difference from the
winner of the next smaller budget, prompt by prompt.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.domain.estimate import mean_estimate
from sdpack.errors import InfeasibleError
from sdpack.pack.selection.selection import Selection
from sdpack.units import format_bytes, parse_bytes

from benchmarks.budget_selections import open_selections
from benchmarks.measured_on import machine_and_versions

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
@click.option(
    "--catalog", "path", type=click.Path(path_type=Path), help="Catalog; default: the zoo."
)
@click.option("--budgets", default="8MiB,12MiB,16MiB,20MiB,24MiB,32MiB,64MiB", show_default=True)
@click.option("--prompts", default=96, show_default=True, help="Maximum number of prompts per mix.")
def main(name: str, path: Path | None, budgets: str, prompts: int) -> None:
    """Print one table."""
    console = Console(width=200)
    table = Table(*HEADS, title=f"the best mix at each budget, {name}, {prompts} prompts")
    before = None
    with open_selections(name, path, prompts, console) as selections:
        for budget in budgets.split(","):
            try:
                evaluator = selections.evaluator(parse_bytes(budget))
            except InfeasibleError as error:
                table.add_row(budget, f"none; {format_bytes(error.smallest_bytes)} is the least")
                continue
            winner = Selection(evaluator).run().winner
            scores = evaluator.scores([winner.mix], range(prompts))[0]
            apart = "" if before is None else mean_estimate(scores - before).to(3)
            before = scores
            weights = [
                selections.footprints.of(variant, winner.placement).weight_bytes
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
    console.print(machine_and_versions("sdpack", "onnxruntime"))


if __name__ == "__main__":
    main()
