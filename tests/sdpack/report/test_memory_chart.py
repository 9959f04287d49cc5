from __future__ import annotations

from pathlib import Path

from sdpack.report.memory_chart import DEVICE, PREDICTED, memory_of_winner
from sdpack.report.points import read_build
from sdpack.units import format_bytes


def test_the_bars_add_up_to_the_peak_and_the_measurement(many: Path) -> None:
    build = read_build(many)
    memory = build.record.memory
    figure = memory_of_winner(build, {"measured here": 123_456_789})
    taken: dict[str, int] = {}
    for row in figure.rows:
        taken[row["bar"]] = taken.get(row["bar"], 0) + round(row["mib"] * 2**20)
    assert taken[PREDICTED] == memory.predicted_bytes
    assert taken["measured here"] == 123_456_789
    assert format_bytes(memory.predicted_bytes) in figure.caption


def test_a_device_far_larger_than_the_peak_is_not_drawn(many: Path) -> None:
    build = read_build(many)
    whole = build.record.memory.budget_bytes + build.record.profile.memory.reserve
    for measured, is_drawn in (
        (whole, True),
        (1, whole <= 12 * build.record.memory.predicted_bytes),
    ):
        rows = memory_of_winner(build, {"here": measured}).rows
        assert any(row["bar"] == DEVICE for row in rows) is is_drawn
