"""Which categories of prompts lose by damage to which part? python -m benchmarks.damaged_parts

The zoo's largest parts draw the list `by_category`, then again with one part damaged: the text
encoder with half its layers, and each part in 2 bits. A table for each judge gives the difference
of each category with its 95 % interval, and that of its share of the loss: of all that the damage
costs on average, so many times as much in this category.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.documents.prompts import read_prompt_file
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, difference_estimate, percentiles
from sdpack.domain.placement import Role

from benchmarks.measured_on import machine_and_versions
from benchmarks.sides import Side, SideScores
from zoo.data.prompts import PROMPTS_FOLDER

LISTED = PROMPTS_FOLDER / "by_category.jsonl"
WHOLE = {Role.TEXT_ENCODER: "l", Role.DENOISER: "l", Role.DECODER: "kl"}
DAMAGED = {
    "text encoder, half its layers": (Role.TEXT_ENCODER, "l-half"),
    "text encoder, 2 bits": (Role.TEXT_ENCODER, "l-2bit"),
    "denoiser, 2 bits": (Role.DENOISER, "l-2bit"),
    "decoder, 2 bits": (Role.DECODER, "kl-2bit"),
}
BOOTSTRAPS = 2000


@click.command()
@click.option("--prompts", default=240, show_default=True, help="Number of prompts per pipeline.")
def main(prompts: int) -> None:
    """Print a table for each judge."""
    console = Console(width=170)
    categories = [prompt.category for prompt in read_prompt_file(LISTED)][:prompts]
    with ExitStack() as stack:
        scores = SideScores(prompts, console, stack, LISTED)
        whole = scores.of(Side(WHOLE))
        losses = {
            words: {
                judge: whole[judge] - found
                for judge, found in scores.of(Side({**WHOLE, role: part})).items()
            }
            for words, (role, part) in DAMAGED.items()
        }
    for judge, found in whole.items():
        of_judge = {words: loss[judge] for words, loss in losses.items()}
        console.print(loss_table(judge, found, of_judge, categories))
    console.print(machine_and_versions("sdpack", "onnxruntime"))


def loss_table(
    judge: str,
    whole: Float64Array,
    losses: dict[str, Float64Array],
    categories: Sequence[str],
) -> Table:
    """What each damage costs in each category, and relative to its cost on average.

    Args:
        whole: scores without damage, float64 (prompts,).
        losses: by damage, how much lower the scores are.
    """
    table = Table("category", "whole", *losses, title=f"{judge}: loss, and relative to the mean")
    for name in [*dict.fromkeys(categories), "all"]:
        own = np.array([name in ("all", each) for each in categories])
        cells = [
            f"{difference_estimate(loss[own]).signed()}  x {_relative(loss, own).to(2)}"
            for loss in losses.values()
        ]
        table.add_row(name, f"{whole[own].mean():.3f}", *cells)
    return table


def _relative(loss: Float64Array, own: np.ndarray) -> Estimate:
    """The mean loss of a category, divided by that of all prompts, with a bootstrap interval."""
    rng = np.random.default_rng(0)
    places = rng.integers(len(loss), size=(BOOTSTRAPS, len(loss)))
    drawn, inside = loss[places], own[places]
    ratios = (drawn * inside).sum(1) / inside.sum(1) / drawn.mean(1)
    return percentiles(float(loss[own].mean() / loss.mean()), ratios.tolist())


if __name__ == "__main__":
    main()
