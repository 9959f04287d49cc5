from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.cli.progress_log import LEAST_SEEN_S, LOG_EVERY_S, SPEED_OVER_S, Pace, ProgressLog


class Timed:
    """A log whose clock is set by hand; `lines` are what was written, and when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[tuple[float, str]] = []
        self.log = ProgressLog(
            lambda line: self.lines.append((self.now, line)), clock=lambda: self.now
        )

    def say(self, at: float, words: str) -> None:
        self.now = at
        self.log.say(words)

    def remind(self, at: float) -> None:
        self.now = at
        self.log.remind()


def test_a_stage_is_written_when_it_begins_and_once_in_half_a_minute() -> None:
    timed = Timed()
    for second in range(100):  # one in a hundred each second
        timed.say(second, f"rounding: {second} %")
    assert timed.lines == [
        (0, "rounding"),
        (30, "rounding: 30 %, about 1 min left"),  # 70 s
        (60, "rounding: 60 %, about 40 s left"),
        (90, "rounding: 90 %, about 10 s left"),
    ]


def test_a_stage_that_was_named_before_it_is_counted_begins_once() -> None:
    timed = Timed()
    for words in ("draw", "draw: 0 %", "draw: 50 %", "round: 0 %", "round: 10 %", "draw"):
        timed.say(0, words)
    assert [line for _, line in timed.lines] == ["draw", "round", "draw"]


def test_a_stage_that_is_counted_late_begins_once() -> None:
    timed = Timed()
    timed.say(0, "calibrating")
    timed.remind(31)
    timed.say(35, "calibrating: 10 %")
    timed.say(45, "calibrating: 20 %")
    timed.say(62, "calibrating: 37 %")
    assert timed.lines == [
        (0, "calibrating"),
        (31, "calibrating: 31 s so far"),
        (62, "calibrating: 37 %, about 1 min left"),  # 27 % in 27 s
    ]


def test_what_is_said_without_a_count_is_always_written() -> None:
    timed = Timed()
    for _ in range(2):
        timed.say(0, "left out: no such file")
    assert len(timed.lines) == 2


def test_a_counted_stage_keeps_its_pace_while_others_begin_beside_it() -> None:
    timed = Timed()
    for minute in range(4):  # a quarter each minute
        timed.say(60 * minute, f"building engines: {25 * minute} %")
        timed.say(60 * minute, f"building engine {minute}")
    assert [line for _, line in timed.lines] == [
        "building engines",
        "building engine 0",
        "building engines: 25 %, about 3 min left",
        "building engine 1",
        "building engines: 50 %, about 2 min left",
        "building engine 2",
        "building engines: 75 %, about 1 min left",
        "building engine 3",
    ]


def test_the_same_work_begun_again_begins_in_the_log() -> None:
    timed = Timed()
    for words in ("build: 0 %", "build: 100 %", "draw", "build: 10 %"):
        timed.say(0, words)
    assert [line for _, line in timed.lines] == ["build", "draw", "build"]


def test_a_stage_that_says_nothing_is_not_silent_in_the_log() -> None:
    timed = Timed()
    timed.remind(0)
    timed.say(0, "exporting denoiser")
    for second in range(95):
        timed.remind(second)
    assert timed.lines == [
        (0, "exporting denoiser"),
        (30, "exporting denoiser: 30 s so far"),
        (60, "exporting denoiser: 1 min so far"),
        (90, "exporting denoiser: 1 min 30 s so far"),
    ]


def test_a_counted_stage_that_is_stuck_says_how_far_it_is() -> None:
    timed = Timed()
    timed.say(0, "rounding: 0 %")
    timed.say(20, "rounding: 50 %")
    timed.remind(29)
    timed.remind(40)  # half of it in 40 s
    timed.say(41, "rounding: 100 %")
    timed.remind(71)
    assert [line for _, line in timed.lines] == [
        "rounding",
        "rounding: 50 %, about 40 s left",
        "rounding: 1 min 11 s so far",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("a", "a: 10 %", "a: 60 %", "b: 5 %", "b: 90 %")),
            st.floats(0, 100),
        ),
        max_size=40,
    )
)
def test_a_stage_that_goes_on_is_written_no_more_often_than_each_half_minute(
    said: list[tuple[str, float]],
) -> None:
    timed = Timed()
    for words, passed in said:
        timed.say(timed.now + passed, words)
    for stage in ("a", "b"):
        begun = -1.0
        for at, line in timed.lines:
            if not line.startswith(stage):
                continue
            assert line == stage or at - begun >= LOG_EVERY_S
            begun = at


@given(st.integers(0, 98), st.integers(1, 99), st.floats(LEAST_SEEN_S, 1e5))
def test_at_a_steady_pace_the_estimate_is_exact(first: int, gained: int, passed: float) -> None:
    last = min(first + gained, 99)
    pace = Pace(first, 0.0)
    pace.see(last, passed)
    assert pace.seconds_left(passed) == pytest.approx(passed / (last - first) * (100 - last))


def test_what_was_cached_is_forgotten_by_the_estimate() -> None:
    pace = Pace(0, 0.0)
    pace.see(50, 1.0)  # was there from an earlier build
    now = 1.0
    for percent in range(51, 80):
        now += 10
        pace.see(percent, now)
    assert now > SPEED_OVER_S
    assert pace.seconds_left(now) == pytest.approx(10 * (100 - 79))


def test_there_is_no_estimate_before_anything_is_done() -> None:
    pace = Pace(5, 0.0)
    assert pace.seconds_left(100.0) is None
    pace.see(6, LEAST_SEEN_S / 2)
    assert pace.seconds_left(LEAST_SEEN_S / 2) is None
