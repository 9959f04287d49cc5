"""Measures the stages of a running build, to compare them with their predictions."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sdpack.domain.precision import Runtime
from sdpack.pack.forecast.intervals import Interval
from sdpack.pack.forecast.speed import here
from sdpack.pack.forecast.stages import BUILD, KIND, Stage
from sdpack.progress import Say, without_count
from sdpack.store.ledger import Ledger

LEAST_S = 5.0  # shorter stages are too short to compare
BEGINNINGS = {
    "exporting ": Stage.EXPORT,
    "calibrating ": Stage.CALIBRATE,
    "measuring the sensitivity ": Stage.SENSITIVITY,
    "rounding ": Stage.ROUND,
    "building ": Stage.ENGINES,
    "drawing ": Stage.DRAW,
}
_DRAWN = re.compile(r"drawing (\d+) prompts with (\d+) (?:mixes|sets of parts)")


@dataclass
class StageClock:
    """Forwards lines of progress, and adds the time between them to their stages.

    Attributes:
        tell: receives the lines.
        now: a monotonic clock, in seconds.
    """

    tell: Say
    now: Callable[[], float] = time.monotonic
    _seconds: dict[Stage, float] = field(default_factory=lambda: defaultdict(float), init=False)
    _lines: dict[Stage, set[str]] = field(default_factory=lambda: defaultdict(set), init=False)
    _current: tuple[Stage | None, float] | None = field(default=None, init=False)

    def say(self, line: str) -> None:
        """Record the time of a line, and forward it."""
        now = self.now()
        self._close(now)
        stage = next((s for start, s in BEGINNINGS.items() if line.startswith(start)), None)
        if stage is not None:
            self._lines[stage].add(without_count(line))
        self._current = stage, now
        self.tell(line)

    def ratios(
        self, predicted: Mapping[Stage, Interval], units: Mapping[Stage, float]
    ) -> dict[Stage, float]:
        """Return measured divided by predicted duration, for each stage.

        A stage often processes only some of its units, because the store has the results of the
        others. Its prediction is scaled by the share that it processed. Stages of a few seconds
        are left out.

        Args:
            predicted: predicted duration of each stage for all units, in seconds.
            units: number of graphs, engines or images of each stage.
        """
        self._close(self.now())
        found = {}
        for stage, seconds in self._seconds.items():
            whole = predicted[stage].middle * min(1.0, self._done(stage) / max(units[stage], 1))
            if seconds >= LEAST_S and whole > 0:
                found[stage] = seconds / whole
        return found

    def _done(self, stage: Stage) -> float:
        if stage is not Stage.DRAW:
            return len(self._lines[stage])
        matches = (_DRAWN.match(line) for line in self._lines[stage])
        return sum(int(match[1]) * int(match[2]) for match in matches if match is not None)

    def _close(self, now: float) -> None:
        """Add the time since the last line to its stage."""
        if self._current is not None and self._current[0] is not None:
            self._seconds[self._current[0]] += now - self._current[1]
        self._current = None if self._current is None else (self._current[0], now)


def record_stages(
    ledger: Ledger, name: str, ratios: Mapping[Stage, float], drawn_on: Runtime
) -> None:
    """Record the ratios of a build, to refine later predictions.

    Args:
        name: identifies the build; a later build with the same name replaces its ratios.
        drawn_on: the runtime that drew the images.
    """
    if ratios:
        value = {stage.value: round(ratio, 3) for stage, ratio in ratios.items()}
        ledger.record(KIND, {**here(drawn_on), BUILD: name}, value)
