"""The race compared with exhaustive search: python -m benchmarks.race_against_exhaustive

At each budget, every mix that fits draws every prompt. The table shows the best of them and the
race's winner, their difference on the same prompts, and the share of images that the race drew.
Images are drawn only once; the race counts those that it would have drawn.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sdpack.evaluate.confidence import interval
from sdpack.pack.selection.selection import Selection
from sdpack.units import format_bytes, parse_bytes

from benchmarks.budget_selections import open_selections
from benchmarks.measured_on import machine_and_versions


@click.command()
@click.option("--profile", "name", default="4gb-gpu", show_default=True)
@click.option(
    "--catalog", "path", type=click.Path(path_type=Path), help="Catalog; default: the zoo."
)
@click.option("--budgets", default="16MiB,24MiB,32MiB,48MiB,64MiB", show_default=True)
@click.option("--prompts", default=64, show_default=True, help="Number of prompts per mix.")
def main(name: str, path: Path | None, budgets: str, prompts: int) -> None:
    """Print one table."""
    console = Console()
    table = Table(title=f"race and exhaustive search, {name}, {prompts} prompts")
    heads = ("budget", "mixes", "race's winner", "best of all", "difference", "pictures", "share")
    for head in heads:
        table.add_column(head)
    with open_selections(name, path, prompts, console) as selections:
        for budget in budgets.split(","):
            evaluator = selections.evaluator(parse_bytes(budget))
            fitted = evaluator.fitted
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
    console.print(machine_and_versions("sdpack", "onnxruntime"))


if __name__ == "__main__":
    main()
