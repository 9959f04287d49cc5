from __future__ import annotations

import altair as alt
from sdpack.report.figure import Figure, color_by, layered, legend_above

ROWS = [{"x": 1, "kind": "a"}, {"x": 2, "kind": "b"}]


def test_a_figure_s_spec_holds_its_rows_and_the_page_s_look() -> None:
    base = alt.Chart(alt.NamedData("mixes")).mark_point()
    colours = {"b": "#111111", "a": "#222222"}
    chart = base.encode(x="x:Q", color=color_by("kind", colours, legend_above(2)))
    figure = Figure("f", "title", "caption", "description", layered([chart], ROWS), ROWS)
    spec = figure.spec
    assert spec["datasets"] == {"mixes": ROWS}
    assert spec["width"] == "container"
    assert spec["config"]["background"] == "transparent"
    colour = spec["layer"][0]["encoding"]["color"]
    assert colour["scale"] == {"domain": ["b", "a"], "range": ["#111111", "#222222"]}
    assert colour["legend"]["orient"] == "top"
