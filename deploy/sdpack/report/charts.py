"""Charts of a build, as Vega-Lite: they work offline, scale, and tell a screen reader their marks.

Colours are those of Okabe and Ito, which people tell apart however they see colours; shapes say the
same once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from sdpack.documents.record import SCREENED_OUT
from sdpack.domain.placement import Role
from sdpack.evaluate.rules import Outcome
from sdpack.report.points import Build, Cost, Point
from sdpack.units import format_bytes

MIB = 2**20
WON, LEVEL, LARGER = "the winner", "not told from it", "no better, and not preferred"
BEATEN, BESIDE = "beaten", "not in the race"
OUTCOMES: Mapping[str | None, str] = {
    Outcome.WON: WON,
    Outcome.OPEN: LEVEL,
    "tied": LEVEL,  # as records before schema 2 say it
    Outcome.SAME: LEVEL,
    Outcome.NO_BETTER: LARGER,
    Outcome.WORSE: BEATEN,
    SCREENED_OUT: BESIDE,
    None: BESIDE,
}
LOOKS = {
    WON: ("#D55E00", "diamond"),
    LEVEL: ("#0072B2", "circle"),
    LARGER: ("#CC79A7", "square"),
    BEATEN: ("#8a8a8a", "cross"),
    BESIDE: ("#009E73", "triangle-up"),
}
ROLE_COLOURS = {
    Role.TEXT_ENCODER: "#0072B2",
    Role.TEXT_ENCODER_2: "#56B4E9",
    Role.TEXT_ENCODER_3: "#004a75",
    Role.DENOISER: "#E69F00",
    Role.DECODER: "#009E73",
}
SCRATCH, PROCESS, MEASURED, BUDGET, RESERVE = "scratch", "process", "in all", "budget", "reserve"
OTHER_COLOURS = {
    SCRATCH: "#CC79A7",
    PROCESS: "#999999",
    MEASURED: "#555555",
    BUDGET: "#b8c4cc",
    RESERVE: "#7d8a93",
}
WIDE = 12  # a device with so many times what is taken is not drawn to scale
ANY = "any"
PRECISION = "precision"
HEIGHT = 340

Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A chart with what is said of it.

    Attributes:
        name: of its file, and of its place in the page.
        told: what it shows, for those who do not see it.
        rows: the data that is drawn.
    """

    name: str
    title: str
    caption: str
    told: str
    chart: alt.LayerChart | alt.Chart
    rows: Sequence[Row]

    @property
    def spec(self) -> dict[str, Any]:
        """Vega-Lite."""
        found: dict[str, Any] = self.chart.to_dict()
        return found


def point_rows(build: Build) -> list[Row]:
    """What the scatter charts draw of each mix; the winner is drawn last, above the others."""
    return [_point_row(point, build.record.indifference) for point in reversed(build.points)]


def _outcome(point: Point, indifference: float) -> str:
    """Of a mix that is the same as another which was worse, that it was beaten."""
    found = OUTCOMES[point.entrant.outcome]
    below = point.difference.high < 0 or point.difference.value <= -indifference
    return BEATEN if found is LEVEL and below else found


def _point_row(point: Point, indifference: float) -> Row:
    parts = {role.value: str(part) for role, part in point.entrant.parts.items()}
    precisions = {part.precision.split("@")[0] for part in point.entrant.parts.values()}
    seconds = point.latency_s
    return {
        **parts,
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
        "pictures": point.pictures,
        "outcome": _outcome(point, indifference),
        "outcome": point.entrant.outcome or "drawn for comparison",
        "fits": "yes" if point.entrant.fits else "no",
        "latency_ms": None if seconds is None else 1000 * seconds,
        "on_front": point.on_front,
        "on_latency_front": point.on_latency_front,
        PRECISION: sorted(precisions),
    }


def quality_by_memory(build: Build) -> Figure:
    """Quality against predicted peak memory, for every mix that was drawn."""
    rows, metric = point_rows(build), build.record.metric
    budget = build.record.memory.budget_bytes
    layers = _scatter(rows, "peak_mib", "Predicted peak memory (MiB)", metric, "on_front")
    largest = max(row["peak_mib"] for row in rows)
    said = f"The budget is {format_bytes(budget)}"
    if budget / MIB <= 1.5 * largest:
        layers.append(_rule([{"budget": budget / MIB}], "budget"))
        said += ", the dashed line"
    caption = (
        f"Each mark is a mix whose pictures were scored. {_FRONT} {said}. A mix that left the race "
        "early is placed by its difference from the winner on the prompts both drew. Bars are "
        "intervals of that difference: for mixes that raced, the one that decided the race (at "
        f"{build.record.confidence:.0%} for all of them together), for others at 95 %. The "
        f"winner's own mean is {build.winner.own} (95 %)."
    )
    return Figure(
        "quality-memory",
        "Quality and memory",
        caption,
        f"Scatter chart of {metric} against predicted peak memory for {len(rows)} mixes; the "
        f"winner is at {build.winner.peak_bytes / MIB:.1f} MiB and {build.winner.own}.",
        _layered(layers, rows),
        rows,
    )


def quality_by_latency(build: Build) -> Figure | None:
    """Quality against seconds for a picture; None where fewer than two mixes were timed."""
    rows = [row for row in point_rows(build) if row["latency_ms"] is not None]
    if len(rows) < 2:
        return None
    metric = build.record.metric
    layers = _scatter(
        rows, "latency_ms", "Time per picture on the build machine (ms)", metric, "on_latency_front"
    )
    return Figure(
        "quality-latency",
        "Quality and speed",
        f"The {len(rows)} mixes that were timed, one picture each with everything loaded, on "
        f"{build.record.machine}, not on the device. {_FRONT}",
        f"Scatter chart of {metric} against milliseconds per picture for {len(rows)} mixes.",
        _layered(layers, rows),
        rows,
    )


_FRONT = "The line joins mixes that no other mix beats in both."


def _scatter(rows: list[Row], x: str, title: str, metric: str, front: str) -> list[alt.Chart]:
    known = [outcome for outcome in LOOKS if any(row["outcome"] == outcome for row in rows)]
    colours = alt.Scale(domain=known, range=[LOOKS[name][0] for name in known])
    shapes = alt.Scale(domain=known, range=[LOOKS[name][1] for name in known])
    across = alt.X(f"{x}:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=12))
    up = alt.Y("quality:Q", title=metric.capitalize(), scale=alt.Scale(zero=False))
    legend = alt.Legend(title=None, orient="top", columns=2, symbolSize=110)
    coloured = alt.Color("outcome:N", scale=colours, legend=legend)
    roles = [role for role in Role if any(role.value in row for row in rows)]
    tooltip = [
        *(alt.Tooltip(f"{role.value}:N", title=role.words) for role in roles),
        alt.Tooltip("said_quality:N", title=metric),
        alt.Tooltip("said_difference:N", title="vs. winner"),
        alt.Tooltip("said_own:N", title="own mean"),
        alt.Tooltip("peak_mib:Q", title="peak (MiB)", format=",.1f"),
        *(
            [alt.Tooltip("latency_ms:Q", title="time per picture (ms)", format=",.0f")]
            if x == "latency_ms"
            else []
        ),
        alt.Tooltip("pictures:Q", title="pictures"),
        alt.Tooltip("outcome:N", title="in the race"),
        alt.Tooltip("lost_to:N", title="lost to, or same as"),
        alt.Tooltip("placement:N", title="run"),
        alt.Tooltip("fits:N", title="fits the budget"),
    ]
    data = alt.NamedData("mixes")
    base = alt.Chart(data).transform_filter(_filter(roles))
    faint = alt.condition("datum.fits == 'yes'", alt.value(1.0), alt.value(0.4))
    line = (
        base.transform_filter(f"datum.{front}")
        .mark_line(strokeWidth=1.5, interpolate="step-after", opacity=0.6, color="#777")
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
        opacity=faint,
        tooltip=tooltip,
    )
    first = marks.add_params(
        *(
            alt.param(name=f"pick_{name}", value=ANY)
            for name in [*(r.value for r in roles), PRECISION]
        )
    )
    return [line, bars, first]


def _filter(roles: Sequence[Role]) -> str:
    """Vega: a mix has the variants and the precision that were picked."""
    kept = [
        f"(pick_{role.value} == '{ANY}' || datum.{role.value} == pick_{role.value})"
        for role in roles
    ]
    kept.append(
        f"(pick_{PRECISION} == '{ANY}' || indexof(datum.{PRECISION}, pick_{PRECISION}) >= 0)"
    )
    return " && ".join(kept)


def _rule(rows: list[Row], x: str) -> alt.Chart:
    marked = alt.Chart(alt.InlineData(values=rows)).mark_rule(strokeDash=[6, 4], strokeWidth=1.5)
    found: alt.Chart = marked.encode(x=f"{x}:Q", color=alt.value("#777"))
    return found


def memory_of_winner(build: Build, measured: Mapping[str, int]) -> Figure:
    """What the winner takes at its peak, by role and kind, predicted beside measured.

    Args:
        measured: what was seen, in bytes, by where.
    """
    memory, reserve = build.record.memory, build.record.profile.memory.reserve
    whole = sum(memory.weights.values()) + memory.activation_bytes + memory.fixed_bytes
    budget, predicted, device = memory.budget_bytes, "predicted", "device"
    rows = [
        _segment(predicted, f"{role.words} weights", count, ROLE_COLOURS[role])
        for role, count in memory.weights.items()
    ]
    scratch = f"{SCRATCH} ({memory.activation_role.words})"
    rows.append(_segment(predicted, scratch, memory.activation_bytes, OTHER_COLOURS[SCRATCH]))
    if memory.fixed_bytes:
        rows.append(_segment(predicted, PROCESS, memory.fixed_bytes, OTHER_COLOURS[PROCESS]))
    for where, count in measured.items():
        rows.append(_segment(where, MEASURED, count, OTHER_COLOURS[MEASURED]))
    seen = [predicted, *measured]
    drawn = budget + reserve <= WIDE * max(whole, *measured.values(), 0)
    if drawn:
        seen.append(device)
        for kind, count in ((BUDGET, budget), (RESERVE, reserve)):
            rows.append(_segment(device, kind, count, OTHER_COLOURS[kind]))
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    colours = {row["kind"]: row["colour"] for row in rows}
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(height=34)
        .encode(
            x=alt.X("mib:Q", title="Memory at the peak (MiB)", stack=True),
            y=alt.Y("bar:N", title=None, sort=seen),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=kinds, range=[colours[kind] for kind in kinds]),
                legend=alt.Legend(title=None, orient="top", columns=2),
            ),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("bar:N", title="bar"),
                alt.Tooltip("kind:N", title="kind"),
                alt.Tooltip("said:N", title="bytes"),
            ],
        )
    )
    where = "the lowest bar" if drawn else "far to the right"
    caption = (
        f"The winner takes {format_bytes(whole)} at its peak, {whole / budget:.1%} of the budget "
        f"of {format_bytes(budget)} ({where}); {format_bytes(reserve)} more are reserved. "
        f"Predicted from {memory.predicted_from.value}."
    )
    return Figure(
        "memory",
        "Where the bytes go",
        caption,
        "Stacked bar of the memory at the peak: "
        + ", ".join(f"{row['bar']} {row['kind']} {row['said']}" for row in rows),
        _layered([bars], None, height=60 * (1 + len(seen))),
        rows,
    )


def _segment(bar: str, kind: str, count: int, colour: str) -> Row:
    place = list(ROLE_COLOURS.values()) + list(OTHER_COLOURS.values())
    return {
        "bar": bar,
        "kind": kind,
        "mib": count / MIB,
        "said": format_bytes(count),
        "colour": colour,
        "place": place.index(colour),
    }


def cost_of_precisions(build: Build) -> Figure | None:
    """What storing a part in less costs in quality; None where no two mixes show it."""
    if not build.costs:
        return None
    rows = [_cost_row(cost) for cost in build.costs]
    order = [row["what"] for row in rows]
    roles = [role for role in Role if any(row["role"] == role.words for row in rows)]
    colours = alt.Scale(
        domain=[role.words for role in roles], range=[ROLE_COLOURS[role] for role in roles]
    )
    base = alt.Chart(alt.InlineData(values=rows))
    up = alt.Y("what:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    title = f"Change of {build.record.metric} (none: 0)"
    coloured = alt.Color(
        "role:N", scale=colours, legend=alt.Legend(title=None, orient="top", columns=2)
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
            alt.Tooltip("pictures:Q", title="pictures"),
            alt.Tooltip("within:N", title="beside"),
        ],
    )
    bars = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=up, color=coloured
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[3, 3])
    drawn = [zero.encode(x="zero:Q", color=alt.value("#777")), bars, marks]
    return Figure(
        "precision",
        "What each precision costs",
        "Each row compares a part with the widest precision it was drawn in, all else the same: "
        "the change of the score, with 95 % intervals over the prompts both drew. Left of the "
        "line is worse. Few pictures make wide intervals; a single picture has none.",
        "Dot chart of the change of the score by part and precision: "
        + "; ".join(f"{row['what']} {row['said']}" for row in rows),
        _layered(drawn, None, height=max(80, 22 * len(rows))),
        rows,
    )


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


def _layered(
    layers: Sequence[alt.Chart], mixes: list[Row] | None, height: int = HEIGHT
) -> alt.LayerChart:
    """The layers in the page's look, as wide as the page."""
    named = {} if mixes is None else {"datasets": {"mixes": mixes}}
    return configured(alt.layer(*layers, width="container", height=height, **named))


def configured(chart: Any) -> alt.LayerChart:
    """A chart without a ground of its own, its letters and lines quiet."""
    found: alt.LayerChart = (
        chart.configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            grid=True,
            gridColor="#8884",
            domainColor="#888",
            tickColor="#888",
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=8,
        )
        .configure_legend(labelFontSize=12, labelLimit=240)
        .configure_point(size=90)
    )
    return found


def build_figures(build: Build, measured: Mapping[str, int]) -> list[Figure]:
    """The charts of one build."""
    found = [
        memory_of_winner(build, measured),
        quality_by_memory(build),
        quality_by_latency(build),
        cost_of_precisions(build),
    ]
    return [figure for figure in found if figure is not None]
