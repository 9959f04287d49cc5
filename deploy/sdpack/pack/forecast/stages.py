"""The stages of a build, and the refinement of their predicted durations.

Every build records how long its stages took in relation to the prediction. Later predictions on the
same machine are scaled by the median of these ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from sdpack.domain.precision import Runtime
from sdpack.pack.forecast.intervals import NOTHING, Interval
from sdpack.pack.forecast.speed import here
from sdpack.store.ledger import Ledger

KIND = "stage seconds"
BUILD = "build"  # key of the name of a build, in a row
SPREAD = Interval(0.5, 2.0)  # bounds of an unrefined prediction, relative to its middle
REFINED = Interval(0.75, 1.35)  # bounds of a refined one
NETWORK = Interval(6e6, 120e6)  # assumed speed of downloads, in bytes per second


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
    """Measured divided by predicted duration of the stages of earlier builds."""

    ratios: Mapping[Stage, float]

    @classmethod
    def read(cls, ledger: Ledger, drawn_on: Runtime) -> StageTimes:
        """Read the ratios of this machine from the ledger.

        Args:
            drawn_on: the runtime that draws the images; with another, a build's stages differ.
        """
        this_machine = here(drawn_on)
        by_stage: dict[Stage, list[float]] = {}
        for row in ledger.measurements(KIND):
            inputs = {key: value for key, value in row.inputs.items() if key != BUILD}
            if inputs == this_machine:
                for name, ratio in row.value.items():
                    by_stage.setdefault(Stage(name), []).append(float(ratio))
        return cls({stage: median(ratios) for stage, ratios in by_stage.items()})

    def refined(self, stage: Stage, seconds: Interval) -> Interval:
        """Return a prediction scaled by the ratio of earlier builds, with its bounds."""
        if stage is Stage.FETCH or seconds == NOTHING:
            return seconds
        ratio = self.ratios.get(stage)
        spread = SPREAD if ratio is None else REFINED
        middle = seconds.middle * (ratio or 1.0)
        return Interval(middle * spread.low, middle * spread.high)
