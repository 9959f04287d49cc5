"""The chart of what each precision of each part costs in quality."""

from __future__ import annotations

import altair as alt

from sdpack.domain.placement import Role
from sdpack.report.figure import GREY, ROLE_COLOURS, Figure, Row, color_by, layered, legend_above
from sdpack.report.points import Build, Cost
from sdpack.units import format_bytes


def cost_of_precisions(build: Build) -> Figure | None:
    """What storing a part in fewer bits costs in quality; None if no two mixes show it."""
    if not build.costs:
        return None
    rows = [_cost_row(cost) for cost in build.costs]
    return Figure(
        "precision",
        "What each precision costs",
        "Each row compares a part with the widest precision it was drawn in, all else the same: "
        "the change of the score, with 95 % intervals over the prompts both drew. Left of the "
        "line is worse. Few images make wide intervals; a single image has none.",
        "Dot chart of the change of the score by part and precision: "
        + "; ".join(f"{row['what']} {row['said']}" for row in rows),
        layered(_layers(rows, build.record.metric), height=max(80, 22 * len(rows))),
        rows,
    )


def _layers(rows: list[Row], metric: str) -> list[alt.Chart]:
    """A line at zero, intervals, and means."""
    base = alt.Chart(alt.InlineData(values=rows))
    order = [row["what"] for row in rows]
    up = alt.Y("what:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    title = f"Change of {metric} (none: 0)"
    roles = [role for role in Role if any(row["role"] == role.words for row in rows)]
    colours = {role.words: ROLE_COLOURS[role] for role in roles}
    coloured = color_by("role", colours, legend_above(2))
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[3, 3])
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=up, color=coloured
    )
    marks = base.mark_point(filled=True, size=90).encode(
        x=alt.X("difference:Q", title=title),
        y=up,
        color=coloured,
        shape=alt.Shape("role:N", legend=None),
        tooltip=[
            alt.Tooltip("what:N", title="part"),
            alt.Tooltip("said:N", title="change"),
            alt.Tooltip("saved:N", title="weights"),
            alt.Tooltip("pictures:Q", title="images"),
            alt.Tooltip("within:N", title="beside"),
        ],
    )
    return [zero.encode(x="zero:Q", color=alt.value(GREY)), bars, marks]


def _cost_row(cost: Cost) -> Row:
    return {
        "role": cost.role.words,
        "candidate": cost.candidate,
        "precision": cost.precision,
        "what": f"{cost.role.words} {cost.candidate}: {cost.precision}",
        "difference": cost.difference.value,
        "low": cost.difference.low,
        "high": cost.difference.high,
        "said": cost.difference.signed(),
        "saved": f"{format_bytes(cost.weight_bytes)}; {format_bytes(cost.widest_bytes)} in "
        f"{cost.widest}",
        "pictures": cost.pictures,
        "within": cost.within,
    }
