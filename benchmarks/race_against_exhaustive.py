"""The selection compared with exhaustive search: python -m benchmarks.race_against_exhaustive

At each budget, every mix that fits draws every prompt. From these scores, a selection is run as in
a build: sets of parts are compared in fp32, the mixes of those that can win are screened, and the
best race. The table shows the best of all mixes and the selection's winner, their difference on the
same prompts, and the share of images that the selection draws.

The selection is then replayed on prompts drawn with replacement from the same scores. A replay errs
if another mix is better than its winner on those prompts by a 95 % interval. The table also shows
how often its winner is worse than the best mix by more than the indifference, by the means over all
prompts, and how often exhaustive search on the resampled prompts is.
"""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from sdpack.evaluate.confidence import interval
from sdpack.evaluate.rules import Rules
from sdpack.pack.preselection.candidate_sets import sets_in_fp32
from sdpack.units import format_bytes, parse_bytes

from benchmarks.budget_selections import BudgetSelections, open_selections
from benchmarks.measured_on import machine_and_versions
from benchmarks.replayed_races import Replay, ScoreTable, replay, resampled


@click.command()
@click.option("--profile", "name", default="4gb-gpu", show_default=True)
@click.option(
    "--catalog", "path", type=click.Path(path_type=Path), help="Catalog; default: the zoo."
)
@click.option("--budgets", default="18MiB,24MiB,32MiB,40MiB,64MiB", show_default=True)
@click.option("--prompts", default=64, show_default=True, help="Number of prompts per mix.")
@click.option("--replays", default=200, show_default=True, help="Replays on resampled prompts.")
def main(name: str, path: Path | None, budgets: str, prompts: int, replays: int) -> None:
    """Print one table."""
    console = Console()
    table = Table(title=f"selection and exhaustive search, {name}, {prompts} prompts")
    heads: tuple[str, ...] = ("budget", "mixes", "selection's winner", "best of all", "difference")
    heads += ("images", "share", "errors", "worse", "exhaustive worse", "mean share")
    for head in heads:
        table.add_column(head)
    sizes = [parse_bytes(budget) for budget in budgets.split(",")]
    with open_selections(name, path, prompts, console) as selections:
        for size in sizes:
            scored = _scored(selections, size)
            mixes = [each.mix for each in scored.fitted]
            scores = scored.rows(mixes)
            best = int(scores.mean(axis=1).argmax())
            chosen = replay(scored, range(scored.prompts))
            apart = interval(scores[mixes.index(chosen.winner)] - scores[best], 0.05)
            table.add_row(
                format_bytes(size),
                str(len(mixes)),
                str(chosen.winner),
                str(mixes[best]),
                f"{apart[0]:+.3f} [{apart[1]:+.3f}, {apart[2]:+.3f}]",
                f"{chosen.images:,} of {scores.size:,}",
                f"{chosen.images / scores.size:.0%}",
                *_replayed(
                    [replay(scored, resampled(scored, seed)) for seed in range(replays)],
                    scores.size,
                ),
            )
            console.print(table)
    console.print(machine_and_versions("sdpack", "onnxruntime"))


def _scored(selections: BudgetSelections, budget_bytes: int) -> ScoreTable:
    """Draw every prompt with every mix, and with every set of parts in fp32."""
    evaluator = selections.evaluator(budget_bytes)
    every = range(evaluator.rules.most)
    mixes = list(dict.fromkeys([*(f.mix for f in evaluator.fitted), *evaluator.possible]))
    sets = sets_in_fp32(selections.toolchain.candidates)
    return ScoreTable(
        evaluator,
        dict(zip(mixes, evaluator.scores(mixes, every), strict=True)),
        dict(zip(sets, evaluator.scores_in_fp32(list(sets.values()), every), strict=True)),
    )


def _replayed(replays: list[Replay], exhaustive: int) -> tuple[str, ...]:
    """The columns of the replays: rates of errors, and the mean share of images."""
    if not replays:
        return ("", "", "", "")
    count, worse = len(replays), Rules().indifference
    return (
        f"{sum(each.is_beaten for each in replays) / count:.1%}",
        f"{sum(each.shortfall > worse for each in replays) / count:.1%}",
        f"{sum(each.shortfall_exhaustive > worse for each in replays) / count:.1%}",
        f"{sum(each.images for each in replays) / count / exhaustive:.0%}",
    )


if __name__ == "__main__":
    main()
