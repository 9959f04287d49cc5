"""The page of a study: where the bytes go as the budget grows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import altair as alt

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
from sdpack.report.charts import MIB, ROLE_COLOURS, Figure, Row, configured
from sdpack.report.page import Page, Table, write_page
from sdpack.report.study_points import (
    GROUPS,
    StudyPoint,
    StudyResult,
    as_csv,
    as_json,
    finding,
    labels,
    read_study,
)
from sdpack.store.artifacts import explain_io, write_whole
from sdpack.units import format_bytes

PAGE, POINTS, TABLE = "study.html", "points.json", "points.csv"
WORDS = {"text": "text encoder", "denoiser": "denoiser", "decoder": "decoder"}
COLOURS = {
    "text encoder": ROLE_COLOURS[Role.TEXT_ENCODER],
    "denoiser": ROLE_COLOURS[Role.DENOISER],
    "decoder": ROLE_COLOURS[Role.DECODER],
}
LINES = (
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
HEIGHT = 340
SPREAD = 0.03  # of the budgets' range, and half of their smallest gap: the marks of a budget


def write_study(source: Path, page: Path) -> StudyResult:
    """A ledger's last study as a page; beside it its charts as PNGs, its points as CSV and JSON.

    Raises:
        StoreError: there is no study, or the folder cannot be written.
    """
    found, folder = read_study(source), page.parent
    write_page(study_page(found), page, folder / CHARTS)
    try:
        write_whole(folder / POINTS, (json.dumps(as_json(found), indent=1) + "\n").encode())
        write_whole(folder / TABLE, as_csv(found.points).encode())
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return found


def study_page(study: StudyResult) -> Page:
    """The page."""
    record = study.record
    return Page(
        title=f"Where the bytes go: {record.catalog}",
        subtitle=(
            f"for {record.profile.name} ({record.profile.description}), "
            f"{record.width}x{record.height} pixels, {record.measured_on}; {study.made_at}"
        ),
        said=finding(study),
        figures=study_figures(study),
        tables=[_table(study), _reproduce(study)],
    )


def study_figures(study: StudyResult) -> list[Figure]:
    """The charts."""
    found = [shares_by_budget(study), quality_by_budget(study), quality_by_share(study)]
    return [figure for figure in found if figure is not None]


def shares_by_budget(study: StudyResult) -> Figure:
    """The share of the weights each role has in the best mix at each budget."""
    best = [point for point in study.points if point.why == BEST]
    budgets = {budget.budget_bytes: budget for budget in study.feasible}
    said = labels(budgets)
    rows: list[Row] = []
    for point in best:
        low, high = study.level_shares(budgets[point.budget_bytes])
        rows += _stack(said[point.budget_bytes], point.shares, point.mix, (low, high))
    rows += _stack(ORIGINAL, STABLE_DIFFUSION, "Stable Diffusion 1.x, parameters", None)
    order = [*(said[point.budget_bytes] for point in best), ORIGINAL]
    names = list(COLOURS)
    across = alt.X("budget:N", sort=order, title="Memory budget", axis=alt.Axis(labelAngle=-40))
    title = "Share of the weights"
    base = alt.Chart(alt.InlineData(values=rows))
    bars = base.mark_bar().encode(
        x=across,
        y=alt.Y("share:Q", title=title, stack="zero", axis=alt.Axis(format="%")),
        color=alt.Color(
            "role:N",
            scale=alt.Scale(domain=names, range=[COLOURS[name] for name in names]),
            legend=alt.Legend(title=None, orient="top", columns=3),
        ),
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
    return Figure(
        "shares",
        "Who gets the bytes",
        "The weights of the best mix at each budget. The line in a bar spans the text encoder's "
        "share in the mixes that tied with the best: the choice is open that far. Last, for "
        "comparison, the parameters of Stable Diffusion 1.x, with its whole VAE as the decoder.",
        "Stacked bars of the share of weights by role: "
        + "; ".join(
            f"{format_bytes(p.budget_bytes)} "
            + ", ".join(f"{WORDS[g]} {p.shares[g]:.0%}" for g in GROUPS)
            for p in best
        ),
        configured(alt.layer(bars, level, width="container", height=HEIGHT)),
        rows,
    )


def _stack(
    budget: str, shares: Mapping[str, float], mix: str, level: tuple[float, float] | None
) -> list[Row]:
    return [
        {
            "budget": budget,
            "role": WORDS[group],
            "share": shares[group],
            "place": place,
            "mix": mix,
            "low": None if level is None else level[0],
            "high": None if level is None else level[1],
        }
        for place, group in enumerate(GROUPS)
    ]


def quality_by_budget(study: StudyResult) -> Figure:
    """Quality of the best mix and of what was not chosen, as the budget grows."""
    points = [point for point in study.points if not point.by_encoder]
    series = list(dict.fromkeys(point.why for point in points))
    budgets = sorted({point.budget_bytes for point in points})
    gaps = [later - earlier for earlier, later in pairwise(budgets)]
    spread = min(2 * SPREAD * (budgets[-1] - budgets[0]), min(gaps, default=0) / 2)
    step = spread / len(series)
    rows = [
        _point_row(
            point,
            point.budget_bytes + step * (series.index(point.why) - (len(series) - 1) / 2),
        )
        for point in points
    ]
    return Figure(
        "quality-budget",
        "What a budget buys",
        "The best mix at each budget, mixes stored in one precision throughout, and two rules: "
        f"“{ENCODER_FIRST}” takes the largest text encoder that fits and then what fits beside "
        f"it, “{DENOISER_FIRST}” the largest denoiser; as we read Imagen, the first should be "
        f"better. “{LIKE_STABLE_DIFFUSION}” is the mix whose weights are divided most "
        "nearly as its parameters. Bars: 95 % intervals of the difference from the best at the "
        f"same budget. The best's own means: {_own_means(points)}. Marks of one budget are drawn "
        "slightly apart.",
        f"Line chart of {study.record.metric} by memory budget for {', '.join(series)}.",
        configured(_lines(rows, series, "budget_mib", "Memory budget (MiB)", study, joined=True)),
        rows,
    )


def _own_means(points: Sequence[StudyPoint]) -> str:
    """Of the best mix at each budget, said once where they are the same."""
    best = [point for point in points if point.why == BEST]
    said, found = labels(point.budget_bytes for point in points), []
    for own, alike in groupby(best, lambda point: point.own):
        budgets = [said[point.budget_bytes] for point in alike]
        where = budgets[0] if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]}"
        found.append(f"{own} at {where}")
    return ", ".join(found)


def quality_by_share(study: StudyResult) -> Figure | None:
    """Quality against the text encoder's share of the bytes at some budgets."""
    points = [point for point in study.points if point.by_encoder]
    if not points:
        return None
    said = labels({point.budget_bytes for point in points})
    rows = [
        {**_point_row(point, point.budget_bytes), "why": said[point.budget_bytes]}
        for point in sorted(points, key=lambda point: point.shares["text"])
    ]
    series = list(said.values())
    title = "Text encoder's share of the weights"
    rule = (
        alt.Chart(alt.InlineData(values=[{"share": STABLE_DIFFUSION["text"]}]))
        .mark_rule(strokeDash=[6, 4], strokeWidth=1.5)
        .encode(x="share:Q", color=alt.value("#777"))
    )
    return Figure(
        "quality-share",
        "How much for the text encoder",
        "The most promising mix with each variant of each text encoder, at some budgets. Bars: "
        "95 % intervals of the difference from the best mix at that budget. The dashed line is the "
        "text encoder's share of the parameters in Stable Diffusion 1.x.",
        f"Scatter chart of {study.record.metric} by the text encoder's share of the weights.",
        configured(_lines(rows, series, "text_share", title, study, joined=False, more=[rule])),
        rows,
    )


def _lines(
    rows: Sequence[Row],
    series: Sequence[str],
    x: str,
    title: str,
    study: StudyResult,
    joined: bool,
    more: Iterable[alt.Chart] = (),
) -> alt.LayerChart | alt.FacetChart:
    colours = alt.Scale(domain=list(series), range=list(LINES[: len(series)]))
    legend = alt.Legend(title=None, orient="top", columns=2, symbolSize=110)
    coloured = alt.Color("why:N", scale=colours, legend=legend)
    metric = study.record.metric.capitalize()
    axis = alt.Axis(format="%") if x.endswith("share") else alt.Axis()
    scale = alt.Scale(domainMin=0) if x.endswith("share") else alt.Scale(zero=False, padding=12)
    across = alt.X(f"{x}:Q", title=title, scale=scale, axis=axis)
    up = alt.Y("quality:Q", title=metric, scale=alt.Scale(zero=False))
    base = alt.Chart(alt.InlineData(values=list(rows)))
    bars = base.mark_rule(opacity=0.45).encode(
        x=across, y=alt.Y("low:Q", title=metric), y2="high:Q", color=coloured
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
            alt.Tooltip("said_quality:N", title=study.record.metric),
            alt.Tooltip("said_difference:N", title="vs. best"),
            alt.Tooltip("peak_mib:Q", title="peak (MiB)", format=",.1f"),
            alt.Tooltip("text_share:Q", title="text encoder", format=".0%"),
            alt.Tooltip("pictures:Q"),
        ],
    )
    layers = [bars, marks]
    if joined:
        layers.insert(0, base.mark_line(strokeWidth=1.5).encode(x=across, y=up, color=coloured))
    return alt.layer(*more, *layers, width="container", height=HEIGHT)


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
        ["pictures drawn on", record.measured_on],
        ["profile", f"{record.profile.name}: {record.profile.runtime}"],
        ["catalog", record.catalog],
        ["budgets", ", ".join(f"{b.budget_bytes:,}" for b in record.budgets)],
        ["prompts", f"{len(record.prompts)}, prompt i from the noise of seed i, counted from 0"],
        ["race", f"confidence {record.confidence:.0%}, indifference {record.indifference:g}"],
        *([tool, version] for tool, version in record.tools.items()),
        *([name, f"{o.source}, {o.licence}"] for name, o in record.origins.items()),
    ]
    return Table("To reproduce this", (), rows)
