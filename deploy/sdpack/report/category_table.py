"""Tables of scores by category of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdpack.documents.record import BEST, DENOISER_FIRST, ENCODER_FIRST, DrawnRecord
from sdpack.report.page import Table
from sdpack.report.paired import Scores, mean_score, paired
from sdpack.report.points import Build, Point
from sdpack.report.study_points import StudyResult

COMPARED = 3  # mixes next to the winner
FIRST = (ENCODER_FIRST, DENOISER_FIRST)


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


def study_category_table(study: StudyResult) -> Iterator[Table]:
    """Yield a table of the best mix's score in each category at each budget.

    Next to it stand the differences of the mixes that spend their bytes on the text encoder or on
    the denoiser first. Nothing is yielded if the prompts have no categories.
    """
    categories, record = study.record.categories, study.record
    if not categories:
        return
    rows = []
    for budget in study.feasible:
        there = {run.why: study.scores(record.entrant(run.mix)) for run in budget.runs}
        best = there[BEST]
        for name in dict.fromkeys(categories):
            own = {n: score for n, score in best.items() if name and categories[n] == name}
            if own:
                away = [_difference(record, there.get(why, {}), own) for why in FIRST]
                mean = str(mean_score(own, record.prompt_of))
                budget_name = study.names[budget.budget_bytes]
                rows.append([budget_name, name, str(len(own)), mean, *away])
    columns = (
        "budget",
        "category",
        "images",
        f"best mix: {record.metric}, 95 %",
        *(f"{why}: vs. best, 95 %" for why in FIRST),
    )
    yield Table("Scores by category of prompts", columns, rows, frozenset({2}))


def _row(
    build: Build, name: str, numbers: Sequence[int], best: Scores, others: Sequence[Point]
) -> list[str]:
    own = {number: best[number] for number in numbers if number in best}
    cells = [name, str(len(own)), str(mean_score(own, build.record.prompt_of))]
    for point in others:
        cells.append(_difference(build.record, build.scores(point.entrant), own))
    return cells


def _difference(record: DrawnRecord, mine: Scores, best: Scores) -> str:
    """The paired difference with its interval; empty for fewer than two images."""
    apart = paired(mine, best)
    return apart.estimate(record.prompt_of).signed() if len(apart) > 1 else ""
