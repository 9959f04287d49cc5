"""The table of scores by category of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sdpack.domain.estimate import difference_estimate, mean_estimate
from sdpack.report.page import Table
from sdpack.report.points import Build, Point, Scores, paired

COMPARED = 3  # mixes next to the winner


def category_table(build: Build) -> Iterator[Table]:
    """Yield a table of the winner's score in each category, and what the next mixes differ by.

    Nothing is yielded if the prompts have no categories.
    """
    categories = build.record.categories
    if not categories:
        return
    winner, others = build.winner, build.points[1 : 1 + COMPARED]
    best = build.scores(winner.entrant)
    rows = [
        _row(build, name, [n for n, own in enumerate(categories) if own == name], best, others)
        for name in dict.fromkeys(categories)
        if name and any(categories[number] == name for number in best)
    ]
    columns = (
        "category",
        "images",
        f"{winner.mix}: {build.record.metric}, 95 %",
        *(f"{point.mix}: vs. winner, 95 %" for point in others),
    )
    yield Table("Scores by category of prompts", columns, rows, frozenset({1}))


def _row(
    build: Build, name: str, numbers: Sequence[int], best: Scores, others: Sequence[Point]
) -> list[str]:
    own = {number: best[number] for number in numbers if number in best}
    cells = [name, str(len(own)), str(mean_estimate(np.array(list(own.values()))))]
    for point in others:
        apart = paired(build.scores(point.entrant), own)
        cells.append(difference_estimate(apart).signed() if len(apart) > 1 else "")
    return cells
