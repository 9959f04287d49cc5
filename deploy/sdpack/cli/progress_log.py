"""Long work in a log: what is being done, how much of it is done, and how long it will take."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from sdpack.progress import Say, percent_done, without_count
from sdpack.units import format_duration, format_estimate

Clock = Callable[[], float]
"""Seconds since some moment; never goes back."""

LOG_EVERY_S = 30.0  # how often a log hears of a stage that goes on
SPEED_OVER_S = 120.0  # how much of the past a speed is measured over: what was cached went faster
LEAST_SEEN_S = 2.0  # a speed measured over less says little


class Pace:
    """How fast one stage goes, from the shares it was seen at in the last two minutes or so.

    Args:
        percent: how much of it is done when it is first seen.
        now: seconds, of the same clock as all later ones.
    """

    def __init__(self, percent: int, now: float) -> None:
        self._seen = deque([(now, percent)])

    @property
    def percent(self) -> int:
        """The last share seen."""
        return self._seen[-1][1]

    def see(self, percent: int, now: float) -> None:
        """Note how much is done now."""
        if percent > self.percent:
            self._seen.append((now, percent))
        while len(self._seen) > 2 and self._seen[1][0] <= now - SPEED_OVER_S:
            self._seen.popleft()

    def seconds_left(self, now: float) -> float | None:
        """At the speed since the oldest share kept; None before there is one.

        Grows while nothing is done.
        """
        began, at_first = self._seen[0]
        gained = self.percent - at_first
        if not gained or now - began < LEAST_SEEN_S:
            return None
        return (100 - self.percent) * (now - began) / gained


class Paces:
    """The pace of every stage that is counted; stages may take turns.

    A count that falls back is taken for the same work begun again.
    """

    def __init__(self) -> None:
        self._of: dict[str, Pace] = {}

    def see(self, words: str, now: float) -> bool:
        """Note what the words say; whether a stage begins with them."""
        stage, percent = without_count(words), percent_done(words)
        if percent is None:
            self._of.pop(stage, None)
            return True
        known = self._of.get(stage)
        if known is None or percent < known.percent:
            self._of[stage] = Pace(percent, now)
            return True
        known.see(percent, now)
        return False

    def with_estimate(self, words: str, now: float) -> str:
        """The words, and how long what they count will still take, once that can be told."""
        pace = self._of.get(without_count(words))
        left = None if pace is None or pace.percent >= 100 else pace.seconds_left(now)
        return words if left is None else f"{words}, about {format_estimate(left)} left"


class ProgressLog:
    """Long work in a log: a line when a stage begins, and one now and then while it goes on.

    Can be called from several threads.

    Args:
        write: takes a line.
        clock: tells the time, in seconds.
    """

    def __init__(self, write: Say, clock: Clock = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._lock = threading.Lock()
        self._paces = Paces()
        self._now_doing = ""
        self._began: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def say(self, words: str) -> None:
        """Write the line if a stage begins with it, or was not heard of for `LOG_EVERY_S`."""
        with self._lock:
            now, stage = self._clock(), without_count(words)
            begins = self._paces.see(words, now)
            goes_on = stage != words and stage == without_count(self._now_doing)
            self._now_doing = words
            if begins and not goes_on:
                self._began[stage] = now
                self._tell(stage, stage, now)
            elif now - self._told[stage] >= LOG_EVERY_S:
                self._tell(stage, self._paces.with_estimate(words, now), now)

    def remind(self) -> None:
        """Write how long the present stage takes so far, if nothing was written for a while."""
        with self._lock:
            now, words = self._clock(), self._now_doing
            if not words or now - max(self._told.values()) < LOG_EVERY_S:
                return
            stage, percent = without_count(words), percent_done(words)
            if percent is None or percent >= 100:
                words = f"{stage}: {format_duration(now - self._began[stage])} so far"
            self._tell(stage, self._paces.with_estimate(words, now), now)

    def _tell(self, stage: str, line: str, now: float) -> None:
        self._told[stage] = now
        self._write(line)
