"""The chart of a winner's predicted memory, its budget and its measured memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt

from sdpack.documents.manifest import MemoryFigures
from sdpack.report.figure import ROLE_COLOURS, Figure, Row, color_by, layered, legend_above
from sdpack.report.points import Build
from sdpack.units import MIB, format_bytes

SCRATCH, PROCESS, MEASURED, BUDGET, RESERVE = "scratch", "process", "in all", "budget", "reserve"
KIND_COLOURS = {
    SCRATCH: "#CC79A7",
    PROCESS: "#999999",
    MEASURED: "#555555",
    BUDGET: "#b8c4cc",
    RESERVE: "#7d8a93",
}
STACKING = [*ROLE_COLOURS.values(), *KIND_COLOURS.values()]  # a bar's segments in their order
WIDEST = 12  # a device with more than so many times the memory taken is not drawn to scale
PREDICTED, DEVICE = "predicted", "device"


def memory_of_winner(build: Build, measured: Mapping[str, int]) -> Figure:
    """The winner's peak memory by role and kind, predicted beside measured.

    Args:
        measured: measured peaks in bytes, by where they were measured.
    """
    record = build.record
    memory, device = record.memory, record.profile.memory
    whole, budget, reserve = memory.predicted_bytes, memory.budget_bytes, device.reserve
    rows = _predicted(memory)
    for where, count in measured.items():
        rows.append(_segment(where, MEASURED, count, KIND_COLOURS[MEASURED]))
    bars = [PREDICTED, *measured]
    drawn = budget + reserve <= WIDEST * max(whole, *measured.values(), 0)
    if drawn:
        bars.append(DEVICE)
        for kind, count in ((BUDGET, budget), (RESERVE, reserve)):
            rows.append(_segment(DEVICE, kind, count, KIND_COLOURS[kind]))
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
        layered([_bars(rows, bars)], height=60 * (1 + len(bars))),
        rows,
    )


def _predicted(memory: MemoryFigures) -> list[Row]:
    """The segments of the predicted bar."""
    rows = [
        _segment(PREDICTED, f"{role.words} weights", count, ROLE_COLOURS[role])
        for role, count in memory.weights.items()
    ]
    scratch = f"{SCRATCH} ({memory.activation_role.words})"
    rows.append(_segment(PREDICTED, scratch, memory.activation_bytes, KIND_COLOURS[SCRATCH]))
    if memory.fixed_bytes:
        rows.append(_segment(PREDICTED, PROCESS, memory.fixed_bytes, KIND_COLOURS[PROCESS]))
    return rows


def _segment(bar: str, kind: str, count: int, colour: str) -> Row:
    return {
        "bar": bar,
        "kind": kind,
        "mib": count / MIB,
        "said": format_bytes(count),
        "colour": colour,
        "place": STACKING.index(colour),
    }


def _bars(rows: Sequence[Row], order: Sequence[str]) -> alt.Chart:
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=list(rows)))
        .mark_bar(height=34)
        .encode(
            x=alt.X("mib:Q", title="Memory at the peak (MiB)", stack=True),
            y=alt.Y("bar:N", title=None, sort=list(order)),
            color=color_by("kind", {row["kind"]: row["colour"] for row in rows}, legend_above(2)),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("bar:N", title="bar"),
                alt.Tooltip("kind:N", title="kind"),
                alt.Tooltip("said:N", title="bytes"),
            ],
        )
    )
    return chart
