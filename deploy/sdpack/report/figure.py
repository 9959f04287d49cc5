"""A figure of a report: a Vega-Lite chart with its text, and the look all charts share.

The colours are those of Okabe and Ito, which people with colour vision deficiencies can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from sdpack.domain.placement import Role

CHART_HEIGHT = 340  # pixels
GREY = "#777"  # of lines that only guide the eye
ROLE_COLOURS = {
    Role.TEXT_ENCODER: "#0072B2",
    Role.TEXT_ENCODER_2: "#56B4E9",
    Role.TEXT_ENCODER_3: "#004a75",
    Role.DENOISER: "#E69F00",
    Role.DECODER: "#009E73",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A chart with its title and text.

    Attributes:
        name: of its file, and of its place in the page.
        description: a description for screen readers.
        rows: the data that is drawn.
    """

    name: str
    title: str
    caption: str
    description: str
    chart: alt.LayerChart | alt.Chart
    rows: Sequence[Row]

    @property
    def spec(self) -> dict[str, Any]:
        """The chart as Vega-Lite JSON."""
        found: dict[str, Any] = self.chart.to_dict()
        return found


def layered(
    layers: Sequence[alt.Chart], mixes: list[Row] | None = None, height: int = CHART_HEIGHT
) -> alt.LayerChart:
    """The layers as one chart in the page's look, as wide as the page.

    Args:
        mixes: rows for layers that draw the named data set "mixes".
        height: in pixels.
    """
    named = {} if mixes is None else {"datasets": {"mixes": mixes}}
    return configured(alt.layer(*layers, width="container", height=height, **named))


def configured(chart: Any) -> alt.LayerChart:
    """The chart in the page's look: a transparent background, grey lines, quiet labels."""
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


def color_by(field: str, colours: Mapping[str, str], legend: alt.Legend) -> alt.Color:
    """Colours by a nominal field of the rows; the legend keeps the order of `colours`."""
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def legend_above(columns: int) -> alt.Legend:
    """An untitled legend above the chart."""
    return alt.Legend(title=None, orient="top", columns=columns)
