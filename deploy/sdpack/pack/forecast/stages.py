"""Seconds that the stages of a build take on this machine, within bounds.

The constants are of one build of the zoo and of builds of Stable Diffusion 1.5 with random weights
on two cores. Every build records what its stages took; the later predictions are scaled by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from sdpack.pack.forecast.intervals import NOTHING, Interval
from sdpack.pack.forecast.speed import here
from sdpack.store.ledger import Ledger

KIND = "stage seconds"
SPREAD = Interval(0.5, 2.0)  # around a prediction that no build has refined
REFINED = Interval(0.75, 1.35)  # around one that was
NETWORK = Interval(6e6, 120e6)  # bytes a second


class Stage(StrEnum):
    """A stage of a build."""

    FETCH = "fetching"
    EXPORT = "exporting"
    CALIBRATE = "calibrating"
    SENSITIVITY = "measuring the sensitivity"
    ROUND = "rounding"
    ENGINES = "building engines"
    DRAW = "drawing"


@dataclass(frozen=True)
class StageTimes:
    """What the stages of earlier builds took, as a share of what had been predicted."""

    ratios: Mapping[Stage, float]

    @classmethod
    def read(cls, ledger: Ledger) -> StageTimes:
        """Those of this machine."""
        by_stage: dict[Stage, list[float]] = {}
        for row in ledger.measurements(KIND):
            if {key: row.inputs.get(key) for key in here()} == here():
                for name, ratio in row.value.items():
                    by_stage.setdefault(Stage(name), []).append(float(ratio))
        return cls({stage: median(ratios) for stage, ratios in by_stage.items()})

    def refined(self, stage: Stage, seconds: Interval) -> Interval:
        """A prediction, by what the stage took in earlier builds."""
        if stage is Stage.FETCH or seconds == NOTHING:
            return seconds
        ratio = self.ratios.get(stage)
        spread = SPREAD if ratio is None else REFINED
        middle = seconds.middle * (ratio or 1.0)
        return Interval(middle * spread.low, middle * spread.high)
