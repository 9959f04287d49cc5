"""Progress of long work in a log: stages, percentages and remaining time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from sdpack.progress import Say, percent_done, without_count
from sdpack.units import format_duration, format_estimate

Clock = Callable[[], float]
"""A monotonic clock, in seconds."""

LOG_EVERY_S = 30.0  # interval between lines of the same stage
SPEED_OVER_S = 120.0  # window for measuring speed; earlier items may have been cached, so faster
LEAST_SEEN_S = 2.0  # minimum time for measuring speed


class Pace:
    """The speed of one stage, from its percentages in the last two minutes.

    Args:
        percent: percentage at the start.
        now: time in seconds.
    """

    def __init__(self, percent: int, now: float) -> None:
        self._seen = deque([(now, percent)])

    @property
    def percent(self) -> int:
        """The latest percentage."""
        return self._seen[-1][1]

    def see(self, percent: int, now: float) -> None:
        """Record a percentage."""
        if percent > self.percent:
            self._seen.append((now, percent))
        while len(self._seen) > 2 and self._seen[1][0] <= now - SPEED_OVER_S:
            self._seen.popleft()

    def seconds_left(self, now: float) -> float | None:
        """Estimate the remaining seconds; None without enough data.

        The estimate grows while there is no progress.
        """
        began, at_first = self._seen[0]
        gained = self.percent - at_first
        if not gained or now - began < LEAST_SEEN_S:
            return None
        return (100 - self.percent) * (now - began) / gained


class Paces:
    """The pace of every stage with percentages; stages may alternate.

    A percentage that decreases restarts its stage.
    """

    def __init__(self) -> None:
        self._of: dict[str, Pace] = {}

    def see(self, words: str, now: float) -> bool:
        """Record a message; return whether it begins a stage."""
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
        """Return a message with the estimated remaining time, if there is an estimate."""
        pace = self._of.get(without_count(words))
        left = None if pace is None or pace.percent >= 100 else pace.seconds_left(now)
        return words if left is None else f"{words}, about {format_estimate(left)} left"


class ProgressLog:
    """Logs long work: a line when a stage begins, and regularly while it continues.

    Thread-safe.

    Args:
        write: writes a line.
        clock: returns the time in seconds.
    """

    def __init__(self, write: Say, clock: Clock = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._lock = threading.Lock()
        self._paces = Paces()
        self._now_doing = ""
        self._began: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def say(self, words: str) -> None:
        """Write a message if it begins a stage, or if its stage is due for another line."""
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
        """Write the elapsed time of the current stage, if nothing was written for a while."""
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
