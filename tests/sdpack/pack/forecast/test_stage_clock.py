from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.domain.precision import Runtime
from sdpack.pack.forecast.intervals import Interval
from sdpack.pack.forecast.stage_clock import StageClock, record_stages
from sdpack.pack.forecast.stages import NETWORK, REFINED, SPREAD, Stage, StageTimes
from sdpack.store.ledger import Ledger

CPU = Runtime.ONNXRUNTIME_CPU
UNITS = {
    Stage.FETCH: 1.0,
    Stage.EXPORT: 4.0,
    Stage.CALIBRATE: 4.0,
    Stage.SENSITIVITY: 4.0,
    Stage.ROUND: 4.0,
    Stage.ENGINES: 8.0,
    Stage.DRAW: 100.0,
}
PREDICTED = {stage: Interval(20.0, 80.0) for stage in Stage}  # 40 s in the middle


def clocked(*lines: tuple[str, float]) -> tuple[StageClock, list[str]]:
    """A clock that was told these lines, each so many seconds before the next."""
    told: list[str] = []
    now = [0.0]
    clock = StageClock(told.append, lambda: now[0])
    for line, seconds in lines:
        clock.say(line)
        now[0] += seconds
    return clock, told


def test_the_time_until_the_next_line_belongs_to_a_line_s_stage() -> None:
    clock, told = clocked(
        ("exporting denoiser s", 6.0),
        ("exporting decoder kl", 4.0),
        ("making denoiser s in w8", 100.0),
        ("calibrating denoiser s: 0 %", 10.0),
        ("calibrating denoiser s: 50 %", 10.0),
    )
    # Two of four graphs were to take 20 s and took 10; one of four 10 s, and took 20.
    assert clock.ratios(PREDICTED, UNITS) == {Stage.EXPORT: 0.5, Stage.CALIBRATE: 2.0}
    assert told[-1] == "calibrating denoiser s: 50 %"


def test_drawing_counts_by_the_image() -> None:
    clock, _ = clocked(
        ("drawing 10 prompts with 4 mixes", 5.0),
        ("drawing 10 prompts with 4 mixes: 50 %", 5.0),
        ("drawing 5 prompts with 2 mixes", 10.0),
    )
    # 50 of 100 images were to take 20 s.
    assert clock.ratios(PREDICTED, UNITS) == {Stage.DRAW: 1.0}


def test_what_was_in_the_store_says_nothing() -> None:
    clock, _ = clocked(("exporting denoiser s", 0.1), ("making denoiser s in w8", 60.0))
    assert clock.ratios(PREDICTED, UNITS) == {}


def test_later_predictions_are_scaled_by_what_builds_took(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    seconds = Interval(20.0, 80.0)
    before = StageTimes.read(ledger, CPU)
    assert before.refined(Stage.DRAW, seconds) == Interval(40 * SPREAD.low, 40 * SPREAD.high)
    for name, ratio in (("a", 3.0), ("b", 2.0), ("c", 9.0)):
        record_stages(ledger, name, {Stage.DRAW: ratio}, CPU)
    record_stages(ledger, "a", {Stage.DRAW: 2.5}, CPU)  # the same build again
    after = StageTimes.read(ledger, CPU)
    middle = 40 * 2.5  # the median of 2.5, 2 and 9
    assert after.refined(Stage.DRAW, seconds).low == pytest.approx(middle * REFINED.low)
    assert after.refined(Stage.DRAW, seconds).high == pytest.approx(middle * REFINED.high)
    on_gpu = StageTimes.read(ledger, Runtime.ONNXRUNTIME_CUDA)
    assert on_gpu == before, "a build that draws elsewhere says nothing"
    assert after.refined(Stage.ROUND, seconds) == before.refined(Stage.ROUND, seconds)
    network = Interval(1.0, NETWORK.high / NETWORK.low)
    assert after.refined(Stage.FETCH, network) == network
    ledger.close()
