"""What the stages of a running build take, and how that compares with its prediction."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sdpack.pack.forecast.intervals import Interval
from sdpack.pack.forecast.speed import here
from sdpack.pack.forecast.stages import KIND, Stage
from sdpack.progress import Say, without_count
from sdpack.store.ledger import Ledger

LEAST_S = 5.0  # a stage that took less says little
BEGINNINGS = {
    "exporting ": Stage.EXPORT,
    "calibrating ": Stage.CALIBRATE,
    "measuring the sensitivity ": Stage.SENSITIVITY,
    "rounding ": Stage.ROUND,
    "building ": Stage.ENGINES,
    "drawing ": Stage.DRAW,
}
_DRAWN = re.compile(r"drawing (\d+) prompts with (\d+) mixes")


@dataclass
class StageClock:
    """Passes lines of progress on, and measures the time between them by stage.

    Attributes:
        now: seconds since some moment; never goes back.
    """

    tell: Say
    now: Callable[[], float] = time.monotonic
    _seconds: dict[Stage, float] = field(default_factory=lambda: defaultdict(float), init=False)
    _lines: dict[Stage, set[str]] = field(default_factory=lambda: defaultdict(set), init=False)
    _current: tuple[Stage | None, float] | None = field(default=None, init=False)

    def say(self, line: str) -> None:
        """Note a line, and pass it on."""
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
        """What the stages took so far, as a share of their prediction.

        Results that were in the store cost nothing: a stage counts by the share of its units that
        it did. Stages of a few seconds are left out.

        Args:
            predicted: seconds of all units.
            units: of each stage: graphs, engines or images.
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


def record_stages(ledger: Ledger, name: str, ratios: Mapping[Stage, float]) -> None:
    """Keep the ratios of a build for the predictions of later ones.

    Args:
        name: of the bundle and what it was built from; a later build of the same replaces them.
    """
    if ratios:
        value = {stage.value: round(ratio, 3) for stage, ratio in ratios.items()}
        ledger.record(KIND, {**here(), "build": name}, value)
