from __future__ import annotations

import pytest
from sdpack.pack.anytime.deadline import FINISH_S, FINISH_SHARE, Deadline
from sdpack.progress import TimeIsUp


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_time_is_up_once_and_only_after_there_is_a_result() -> None:
    clock, lines = Clock(), list[str]()
    deadline = Deadline(1000.0, clock)
    say = deadline.watching(lines.append)
    clock.time += 2000
    say("no result yet")
    deadline.arm()
    with pytest.raises(TimeIsUp):
        say("the last line")
    say("writing the bundle")
    assert lines == ["no result yet", "the last line", "writing the bundle"]
    assert deadline.is_up


def test_time_is_kept_to_write_the_bundle() -> None:
    clock = Clock()
    deadline = Deadline(1000.0, clock)
    deadline.arm()
    assert deadline.left_s == 1000 - FINISH_S
    deadline.reserve(8.0)
    clock.time += 1000 - FINISH_S - 8.5
    deadline.check()
    clock.time += 1
    with pytest.raises(TimeIsUp):
        deadline.check()


def test_a_short_limit_is_not_spent_on_writing_alone() -> None:
    deadline = Deadline(10.0, Clock())
    deadline.reserve(60)
    assert deadline.left_s == pytest.approx((1 - FINISH_SHARE) * 10)


def test_no_handler_of_errors_stops_it() -> None:
    assert not issubclass(TimeIsUp, Exception)
