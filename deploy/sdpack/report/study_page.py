"""The page of a study: how the bytes are divided as the budget grows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import altair as alt

from sdpack.documents.evidence import weight_words
from sdpack.documents.layout import CHARTS
from sdpack.documents.record import (
    BEST,
    DENOISER_FIRST,
    ENCODER_FIRST,
    LIKE_STABLE_DIFFUSION,
    STABLE_DIFFUSION,
)
from sdpack.domain.placement import Role
from sdpack.errors import StoreError
from sdpack.report.category_table import study_category_table
from sdpack.report.figure import (
    GREY,
    ROLE_COLOURS,
    Figure,
    Row,
    color_by,
    layered,
    legend_above,
)
from sdpack.report.origin_rows import origin_rows
from sdpack.report.page import Page, Table, write_page
from sdpack.report.study_files import as_csv, as_json
from sdpack.report.study_finding import finding
from sdpack.report.study_points import (
    GROUPS,
    StudyPoint,
    StudyResult,
    labels,
    read_study,
)
from sdpack.store.files import explain_io, write_whole
from sdpack.units import MIB, format_bytes

PAGE, POINTS_JSON, POINTS_CSV = "study.html", "points.json", "points.csv"
GROUP_NAMES = {"text": "text encoder", "denoiser": "denoiser", "decoder": "decoder"}
GROUP_COLOURS = {
    "text encoder": ROLE_COLOURS[Role.TEXT_ENCODER],
    "denoiser": ROLE_COLOURS[Role.DENOISER],
    "decoder": ROLE_COLOURS[Role.DECODER],
}
SERIES_COLOURS = (
    "#D55E00",
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#555555",
    "#8a6d00",
    "#7b3294",
    "#1b7837",
)
ORIGINAL = "SD 1.x"
MARK_SPREAD = 0.03  # share of the budgets' range that the marks of one budget are spread over


def write_study(source: Path, page: Path) -> StudyResult:
    """Write a ledger's last study as a page, with charts (PNG) and points (CSV, JSON) beside it.

    Raises:
        StoreError: there is no study, or the folder cannot be written.
    """
    found, folder = read_study(source), page.parent
    write_page(study_page(found), page, folder / CHARTS)
    try:
        write_whole(folder / POINTS_JSON, (json.dumps(as_json(found), indent=1) + "\n").encode())
        write_whole(folder / POINTS_CSV, as_csv(found.points).encode())
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return found


def study_page(study: StudyResult) -> Page:
    """The page of a study."""
    record = study.record
    return Page(
        title=f"Where the bytes go: {record.catalog}",
        subtitle=(
            f"for {record.profile.name} ({record.profile.description}), "
            f"{record.width}x{record.height} pixels, {record.measured_on}; {study.made_at}"
        ),
        summary=finding(study),
        figures=study_figures(study),
        tables=[_table(study), *study_category_table(study), _reproduce(study)],
    )


def study_figures(study: StudyResult) -> list[Figure]:
    """The charts of a study."""
    found = [shares_by_budget(study), quality_by_budget(study), quality_by_share(study)]
    return [figure for figure in found if figure is not None]


def shares_by_budget(study: StudyResult) -> Figure:
    """The share of the weights each role has in the best mix at each budget."""
    best = [point for point in study.points if point.why == BEST]
    budgets = {budget.budget_bytes: budget for budget in study.feasible}
    named = labels(budgets)
    rows: list[Row] = []
    for point in best:
        low, high = study.level_shares(budgets[point.budget_bytes])
        rows += _stack(named[point.budget_bytes], point.shares, point.mix, (low, high))
    rows += _stack(ORIGINAL, STABLE_DIFFUSION, "Stable Diffusion 1.x, parameters", None)
    return Figure(
        "shares",
        "Who gets the bytes",
        "The weights of the best mix at each budget. The line in a bar spans the text encoder's "
        "share in the mixes that tied with the best. The last bar shows, for comparison, the "
        "parameters of Stable Diffusion 1.x, with its whole VAE as the decoder.",
        "Stacked bars of the share of weights by role: "
        + "; ".join(
            f"{format_bytes(p.budget_bytes)} "
            + ", ".join(f"{GROUP_NAMES[g]} {p.shares[g]:.0%}" for g in GROUPS)
            for p in best
        ),
        layered(_share_bars(rows, [*(named[p.budget_bytes] for p in best), ORIGINAL])),
        rows,
    )


def _share_bars(rows: list[Row], order: list[str]) -> list[alt.Chart]:
    """Stacked bars, and in each a line over the range of the text encoder's share."""
    across = alt.X("budget:N", sort=order, title="Memory budget", axis=alt.Axis(labelAngle=-40))
    title = "Share of the weights"
    base = alt.Chart(alt.InlineData(values=rows))
    bars = base.mark_bar().encode(
        x=across,
        y=alt.Y("share:Q", title=title, stack="zero", axis=alt.Axis(format="%")),
        color=color_by("role", GROUP_COLOURS, legend_above(3)),
        order=alt.Order("place:Q"),
        tooltip=[
            alt.Tooltip("budget:N"),
            alt.Tooltip("role:N"),
            alt.Tooltip("share:Q", format=".1%"),
            alt.Tooltip("mix:N"),
        ],
    )
    level = (
        base.transform_filter("datum.place == 0 && isValid(datum.low)")
        .mark_rule(strokeWidth=2.5, color="currentColor")
        .encode(x=across, y=alt.Y("low:Q", title=title), y2="high:Q")
    )
    return [bars, level]


def _stack(
    budget: str, shares: Mapping[str, float], mix: str, level: tuple[float, float] | None
) -> list[Row]:
    return [
        {
            "budget": budget,
            "role": GROUP_NAMES[group],
            "share": shares[group],
            "place": place,
            "mix": mix,
            "low": None if level is None else level[0],
            "high": None if level is None else level[1],
        }
        for place, group in enumerate(GROUPS)
    ]


def quality_by_budget(study: StudyResult) -> Figure:
    """Quality of the best mix and of the others, as the budget grows."""
    points = [point for point in study.points if not point.by_encoder]
    series = list(dict.fromkeys(point.why for point in points))
    budgets = sorted({point.budget_bytes for point in points})
    gaps = [later - earlier for earlier, later in pairwise(budgets)]
    spread = min(2 * MARK_SPREAD * (budgets[-1] - budgets[0]), min(gaps, default=0) / 2)
    step = spread / len(series)
    rows = [
        _point_row(
            point,
            point.budget_bytes + step * (series.index(point.why) - (len(series) - 1) / 2),
        )
        for point in points
    ]
    across = alt.X(
        "budget_mib:Q",
        title="Memory budget (MiB)",
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(),
    )
    layers = _lines(rows, series, across, study.record.metric)
    return Figure(
        "quality-budget",
        "What a budget buys",
        "The best mix at each budget, mixes with the same precision in all parts, and three rules. "
        f"“{ENCODER_FIRST}” takes the largest text encoder that fits, then the largest denoiser; "
        f"“{DENOISER_FIRST}” takes the denoiser first. Imagen's finding suggests that the former "
        f"is better. “{LIKE_STABLE_DIFFUSION}” is the mix whose weights are split most like the "
        "parameters of Stable Diffusion. Bars: 95 % intervals of the difference from the best at "
        f"the same budget. Means of the best: {_own_means(points)}. Marks of one budget are drawn "
        "slightly apart.",
        f"Line chart of {study.record.metric} by memory budget for {', '.join(series)}.",
        layered([layers["line"], layers["bars"], layers["marks"]]),
        rows,
    )


def _own_means(points: Sequence[StudyPoint]) -> str:
    """The best mix's mean at each budget; equal neighbours are one entry."""
    best = [point for point in points if point.why == BEST]
    named, found = labels(point.budget_bytes for point in points), []
    for own, alike in groupby(best, lambda point: point.own):
        budgets = [named[point.budget_bytes] for point in alike]
        where = budgets[0] if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}"
        found.append(f"{own} at {where}")
    return ", ".join(found)


def quality_by_share(study: StudyResult) -> Figure | None:
    """Quality against the text encoder's share of the bytes, at some budgets; None if not drawn."""
    points = [point for point in study.points if point.by_encoder]
    if not points:
        return None
    named = labels({point.budget_bytes for point in points})
    rows = [
        {**_point_row(point, point.budget_bytes), "why": named[point.budget_bytes]}
        for point in sorted(points, key=lambda point: point.shares["text"])
    ]
    across = alt.X(
        "text_share:Q",
        title="Text encoder's share of the weights",
        scale=alt.Scale(domainMin=0),
        axis=alt.Axis(format="%"),
    )
    layers = _lines(rows, list(named.values()), across, study.record.metric)
    rule = (
        alt.Chart(alt.InlineData(values=[{"share": STABLE_DIFFUSION["text"]}]))
        .mark_rule(strokeDash=[6, 4], strokeWidth=1.5)
        .encode(x="share:Q", color=alt.value(GREY))
    )
    return Figure(
        "quality-share",
        "How much for the text encoder",
        "The most promising mix with each variant of each text encoder, at some budgets. Bars: "
        "95 % intervals of the difference from the best mix at that budget. The dashed line is the "
        "text encoder's share of the parameters in Stable Diffusion 1.x.",
        f"Scatter chart of {study.record.metric} by the text encoder's share of the weights.",
        layered([rule, layers["bars"], layers["marks"]]),
        rows,
    )


def _lines(
    rows: Sequence[Row], series: Sequence[str], across: alt.X, metric: str
) -> dict[str, alt.Chart]:
    """Layers by kind: the intervals ("bars"), the means ("marks"), and a line through these."""
    colours = alt.Scale(domain=list(series), range=list(SERIES_COLOURS[: len(series)]))
    legend = alt.Legend(title=None, orient="top", columns=2, symbolSize=110)
    coloured = alt.Color("why:N", scale=colours, legend=legend)
    title = metric.capitalize()
    up = alt.Y("quality:Q", title=title, scale=alt.Scale(zero=False))
    base = alt.Chart(alt.InlineData(values=list(rows)))
    bars = base.mark_rule(opacity=0.45).encode(
        x=across, y=alt.Y("low:Q", title=title), y2="high:Q", color=coloured
    )
    marks = base.mark_point(filled=True, size=90, stroke="white", strokeWidth=0.5).encode(
        x=across,
        y=up,
        color=coloured,
        shape=alt.Shape("why:N", scale=alt.Scale(domain=list(series)), legend=legend),
        tooltip=[
            alt.Tooltip("why:N", title="which"),
            alt.Tooltip("mix:N"),
            alt.Tooltip("budget:N"),
            alt.Tooltip("said_quality:N", title=metric),
            alt.Tooltip("said_difference:N", title="vs. best"),
            alt.Tooltip("peak_mib:Q", title="peak (MiB)", format=",.1f"),
            alt.Tooltip("text_share:Q", title="text encoder", format=".0%"),
            alt.Tooltip("pictures:Q", title="images"),
        ],
    )
    line = base.mark_line(strokeWidth=1.5).encode(x=across, y=up, color=coloured)
    return {"bars": bars, "marks": marks, "line": line}


def _point_row(point: StudyPoint, at_bytes: float) -> Row:
    return {
        "why": point.why,
        "mix": point.mix,
        "budget": format_bytes(point.budget_bytes),
        "budget_mib": at_bytes / MIB,
        "peak_mib": point.peak_bytes / MIB,
        "quality": point.quality.value,
        "low": point.quality.low,
        "high": point.quality.high,
        "said_quality": str(point.own),
        "said_difference": point.difference.signed(),
        "pictures": point.pictures,
        "text_share": point.shares["text"],
    }


def _table(study: StudyResult) -> Table:
    columns = ("budget", "which", "mix", "peak", study.record.metric, "vs. best", "shares, %")
    rows = [
        [
            format_bytes(p.budget_bytes),
            f"most promising with {p.why}" if p.by_encoder else p.why,
            p.mix,
            format_bytes(p.peak_bytes),
            str(p.own),
            "" if p.why == BEST else p.difference.signed(),
            " / ".join(f"{100 * p.shares[group]:.0f}" for group in GROUPS),
        ]
        for p in study.points
    ]
    return Table(f"All {len(rows)} points", columns, rows, frozenset({0, 3}))


def _reproduce(study: StudyResult) -> Table:
    record = study.record
    rows = [
        ["study", f"{record.name}, {study.made_at}"],
        ["machine it ran on", record.machine],
        ["images drawn on", record.measured_on],
        ["profile", f"{record.profile.name}: {record.profile.runtime}"],
        ["catalog", record.catalog],
        ["budgets", ", ".join(f"{b.budget_bytes:,}" for b in record.budgets)],
        ["prompts", record.prompt_words],
        ["race", f"confidence {record.confidence:.0%}, indifference {record.indifference:g}"],
        *(["categories", words] for words in weight_words(record.weights)),
        *([tool, version] for tool, version in record.tools.items()),
        *origin_rows(record.origins),
    ]
    return Table("To reproduce this", (), rows)
