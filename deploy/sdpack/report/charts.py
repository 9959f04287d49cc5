"""The charts of a build: quality against memory and speed, memory, and precisions.

They are Vega-Lite: they work offline and scale, and screen readers can read their marks. Shapes
repeat what the colours say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

from sdpack.documents.evidence import LatencyLimit
from sdpack.documents.record import SCREENED_OUT
from sdpack.domain.placement import Role
from sdpack.evaluate.rules import Outcome
from sdpack.report.figure import GREY, Figure, Row, layered
from sdpack.report.memory_chart import memory_of_winner
from sdpack.report.points import Build, Point
from sdpack.report.precision_chart import cost_of_precisions
from sdpack.units import MIB, format_bytes

WON, LEVEL, LARGER = "the winner", "not told from it", "no better, and not preferred"
BEATEN, BESIDE = "beaten", "not in the race"
DISPUTED, UNLIKE = "disputed by another judge", "unlike fp32, may not win"
OUTCOMES: Mapping[str | None, str] = {
    Outcome.WON: WON,
    Outcome.OPEN: LEVEL,
    "tied": LEVEL,  # the word for open in records of schema 1
    Outcome.SAME: LEVEL,
    Outcome.NO_BETTER: LARGER,
    Outcome.WORSE: BEATEN,
    Outcome.DISPUTED: DISPUTED,
    Outcome.UNLIKE: UNLIKE,
    SCREENED_OUT: BESIDE,
    None: BESIDE,
}
LOOKS = {
    WON: ("#D55E00", "diamond"),
    LEVEL: ("#0072B2", "circle"),
    LARGER: ("#CC79A7", "square"),
    BEATEN: ("#8a8a8a", "cross"),
    BESIDE: ("#009E73", "triangle-up"),
    DISPUTED: ("#E69F00", "triangle-down"),
    UNLIKE: ("#000000", "stroke"),
}
ANY_VALUE = "any"
PRECISION = "precision"


def build_figures(build: Build, measured: Mapping[str, int]) -> list[Figure]:
    """The charts of one build.

    Args:
        measured: measured peaks in bytes, by where they were measured.
    """
    found = [
        memory_of_winner(build, measured),
        quality_by_memory(build),
        quality_by_latency(build),
        cost_of_precisions(build),
    ]
    return [figure for figure in found if figure is not None]


def point_rows(build: Build) -> list[Row]:
    """The rows of the scatter charts, one a mix; the winner is last, so it is drawn on top."""
    return [_point_row(point, build.record.indifference) for point in reversed(build.points)]


def _outcome(point: Point, indifference: float) -> str:
    """How a mix came out; a mix that is the same as one that was worse counts as beaten."""
    found = OUTCOMES[point.entrant.outcome]
    below = point.difference.high < 0 or point.difference.value <= -indifference
    return BEATEN if found is LEVEL and below else found


def _point_row(point: Point, indifference: float) -> Row:
    parts, seconds = point.parts, point.latency_s
    return {
        **{role.value: str(part) for role, part in parts.items()},
        "mix": point.mix,
        "placement": point.placement,
        "peak_mib": point.peak_bytes / MIB,
        "quality": point.quality.value,
        "low": point.quality.low,
        "high": point.quality.high,
        "said_quality": f"{point.quality.value:.3f}",
        "said_own": str(point.own),
        "lost_to": point.entrant.lost_to or "",
        "said_difference": f"{point.difference.signed()} ({'race' if point.raced else '95 %'})",
        "pictures": point.images,
        "outcome": _outcome(point, indifference),
        "race_outcome": point.entrant.outcome or "drawn for comparison",
        "fits": "yes" if point.entrant.fits else "no",
        "latency_ms": None if seconds is None else 1000 * seconds,
        "on_front": point.on_front,
        "on_latency_front": point.on_latency_front,
        PRECISION: sorted({part.base_precision for part in parts.values()}),
    }


def quality_by_memory(build: Build) -> Figure:
    """Quality against predicted peak memory, for every mix that was drawn."""
    record, rows = build.record, point_rows(build)
    metric, budget = record.metric, record.memory.budget_bytes
    layers = _scatter(rows, "peak_mib", "Predicted peak memory (MiB)", metric, "on_front")
    largest = max(row["peak_mib"] for row in rows)
    said = f"The budget is {format_bytes(budget)}"
    if budget / MIB <= 1.5 * largest:
        layers.append(_rule([{"budget": budget / MIB}], "budget"))
        said += ", the dashed line"
    caption = (
        f"Each mark is a mix whose images were scored. {_FRONT} {said}. A mix that left the race "
        "early is placed by its difference from the winner on the prompts both drew. Bars are "
        "intervals of that difference: for mixes that raced, the one that decided the race (at "
        f"{record.confidence:.0%} for all of them together), for others at 95 %. The "
        f"winner's own mean is {build.winner.own} (95 %)."
    )
    return Figure(
        "quality-memory",
        "Quality and memory",
        caption,
        f"Scatter chart of {metric} against predicted peak memory for {len(rows)} mixes; the "
        f"winner is at {build.winner.peak_bytes / MIB:.1f} MiB and {build.winner.own}.",
        layered(layers, rows),
        rows,
    )


def quality_by_latency(build: Build) -> Figure | None:
    """Quality against time per image; None if fewer than two mixes were timed.

    With a limit on that time, it shows the times that the limit was applied to.
    """
    if build.record.latency_limit is not None:
        return _quality_by_limited_latency(build, build.record.latency_limit)
    rows = [row for row in point_rows(build) if row["latency_ms"] is not None]
    if len(rows) < 2:
        return None
    metric = build.record.metric
    layers = _scatter(
        rows, "latency_ms", "Time per image on the build machine (ms)", metric, "on_latency_front"
    )
    return Figure(
        "quality-latency",
        "Quality and speed",
        f"The {len(rows)} mixes that were timed, one image each with everything loaded, on "
        f"{build.record.machine}, not on the device. {_FRONT}",
        f"Scatter chart of {metric} against milliseconds per image for {len(rows)} mixes.",
        layered(layers, rows),
        rows,
    )


def _quality_by_limited_latency(build: Build, limit: LatencyLimit) -> Figure:
    """Quality against the time per image on the device, with the limit as a dashed line."""
    metric = build.record.metric
    rows = [row for row in point_rows(build) if row["latency_ms"] is not None]
    title = "Time per image, measured" if limit.is_measured else "Predicted time per image"
    layers = _scatter(rows, "latency_ms", f"{title} (ms)", metric, "on_latency_front")
    layers.append(_rule([{"limit": 1000 * limit.max_seconds}], "limit"))
    return Figure(
        "quality-latency",
        "Quality and speed",
        f"The {len(rows)} mixes that were drawn and are fast enough; each time is the sum of "
        f"those of its parts, {limit.how}. The dashed line is the limit, "
        f"{limit.max_seconds:g} s; {limit.left_out:,} other mixes that fit the memory take "
        f"longer and were left out. {_FRONT}",
        f"Scatter chart of {metric} against milliseconds per image for {len(rows)} mixes; the "
        f"limit is at {1000 * limit.max_seconds:,.0f} ms.",
        layered(layers, rows),
        rows,
    )


_FRONT = "The line joins mixes that no other mix beats in both."


def _scatter(rows: list[Row], x: str, title: str, metric: str, front: str) -> list[alt.Chart]:
    """The line of the Pareto front, intervals, and marks.

    Args:
        x: the rows' field along the x axis; `title` is the axis's.
        front: the rows' field that says which are on the front.
    """
    known = [outcome for outcome in LOOKS if any(row["outcome"] == outcome for row in rows)]
    colours = alt.Scale(domain=known, range=[LOOKS[name][0] for name in known])
    shapes = alt.Scale(domain=known, range=[LOOKS[name][1] for name in known])
    across = alt.X(f"{x}:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=12))
    up = alt.Y("quality:Q", title=metric.capitalize(), scale=alt.Scale(zero=False))
    legend = alt.Legend(title=None, orient="top", columns=2, symbolSize=110)
    coloured = alt.Color("outcome:N", scale=colours, legend=legend)
    roles = [role for role in Role if any(role.value in row for row in rows)]
    base = alt.Chart(alt.NamedData("mixes")).transform_filter(_filter(roles))
    line = (
        base.transform_filter(f"datum.{front}")
        .mark_line(strokeWidth=1.5, interpolate="step-after", opacity=0.6, color=GREY)
        .encode(x=across, y=up, order=alt.Order(f"{x}:Q"))
    )
    bars = base.mark_rule(opacity=0.45).encode(
        x=across, y=alt.Y("low:Q", title=metric.capitalize()), y2="high:Q", color=coloured
    )
    marks = base.mark_point(filled=True, size=110, stroke="white", strokeWidth=0.5).encode(
        x=across,
        y=up,
        color=coloured,
        shape=alt.Shape("outcome:N", scale=shapes, legend=legend),
        opacity=alt.condition("datum.fits == 'yes'", alt.value(1.0), alt.value(0.4)),
        tooltip=_tooltips(roles, metric, timed=x == "latency_ms"),
    )
    picked = [*(role.value for role in roles), PRECISION]
    filters = [alt.param(name=f"pick_{name}", value=ANY_VALUE) for name in picked]
    return [line, bars, marks.add_params(*filters)]


def _tooltips(roles: Sequence[Role], metric: str, timed: bool) -> list[alt.Tooltip]:
    latency = alt.Tooltip("latency_ms:Q", title="time per image (ms)", format=",.0f")
    return [
        *(alt.Tooltip(f"{role.value}:N", title=role.words) for role in roles),
        alt.Tooltip("said_quality:N", title=metric),
        alt.Tooltip("said_difference:N", title="vs. winner"),
        alt.Tooltip("said_own:N", title="own mean"),
        alt.Tooltip("peak_mib:Q", title="peak (MiB)", format=",.1f"),
        *([latency] if timed else []),
        alt.Tooltip("pictures:Q", title="images"),
        alt.Tooltip("race_outcome:N", title="in the race"),
        alt.Tooltip("lost_to:N", title="lost to, or same as"),
        alt.Tooltip("placement:N", title="run"),
        alt.Tooltip("fits:N", title="fits the budget"),
    ]


def _filter(roles: Sequence[Role]) -> str:
    """A Vega expression: the mix has the variants and the precision that were picked."""
    kept = [
        f"(pick_{role.value} == '{ANY_VALUE}' || datum.{role.value} == pick_{role.value})"
        for role in roles
    ]
    kept.append(
        f"(pick_{PRECISION} == '{ANY_VALUE}' || indexof(datum.{PRECISION}, pick_{PRECISION}) >= 0)"
    )
    return " && ".join(kept)


def _rule(rows: list[Row], x: str) -> alt.Chart:
    marked = alt.Chart(alt.InlineData(values=rows)).mark_rule(strokeDash=[6, 4], strokeWidth=1.5)
    found: alt.Chart = marked.encode(x=f"{x}:Q", color=alt.value(GREY))
    return found
