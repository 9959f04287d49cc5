"""What is measured of a mix besides its score: latency, distance to real pictures, tiles."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sdpack.documents.record import DISTANCE, LATENCY
from sdpack.domain.estimate import Estimate
from sdpack.domain.placement import Loading
from sdpack.errors import BrokenPictureError
from sdpack.evaluate.metrics import kid
from sdpack.evaluate.runner import EvaluationRunner
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.mix import Mix
from sdpack.pack.selection.catalog_judge import CatalogJudge
from sdpack.pack.selection.pipeline_specs import PipelineSpecs

TIMED_PICTURES = 3
SLOW_S = 10.0  # a picture that takes longer is not drawn again to be timed
TIMING_S = 30.0  # of timing, after which no further mix is timed
TILED_DIFFERENCE = "tiled difference"


@dataclass
class Measurements:
    """Measures mixes of one build; what the ledger knows is not measured again.

    Attributes:
        timed: mixes whose latency is known.
        distances: mixes whose distance to real pictures is known, and over how many prompts.
    """

    context: BuildContext
    specs: PipelineSpecs
    runner: EvaluationRunner
    judging: CatalogJudge
    timed: set[Mix] = field(default_factory=set, init=False)
    distances: dict[Mix, int] = field(default_factory=dict, init=False)
    _timed_s: float = field(default=0.0, init=False)

    def distance(self, mix: Mix, chunks: Sequence[Sequence[int]], of: int) -> Estimate:
        """KID of a mix's pictures to all the real ones.

        Args:
            chunks: the numbers of the prompts, as they were drawn.
            of: the number of prompts real pictures were cut for.
        """
        ledger, spec = self.context.ledger, self.specs.of(mix)
        numbers = [number for chunk in chunks for number in chunk]
        self.distances[mix] = len(numbers)
        catalog = self.context.catalog
        inputs = {
            **self.runner.inputs(spec, numbers),
            "real": self.judging.real_content,
            "cut": [catalog.image_size, catalog.quality.real_columns, of],
        }
        known = ledger.find(DISTANCE, inputs)
        if known is None:
            self.context.say(f"comparing {mix} with real pictures")
            pictures = [self.runner.pictures(spec, list(chunk)) for chunk in chunks]
            drawn = self.judging.panel.features(torch.from_numpy(np.concatenate(pictures)))
            known = asdict(kid(drawn, self.judging.real_features))
            ledger.record(DISTANCE, inputs, known)
        return Estimate(**known)

    def latency_s(self, fitted: Fitted, always: bool = False) -> float | None:
        """Seconds for one picture of a fitted mix on this machine, loading not counted.

        None where the picture is broken; and, unless it is `always` wanted, where it is not known
        and others have taken all the time there is for that.
        """
        inputs = self._latency_inputs(fitted)
        ledger = self.context.ledger
        known = ledger.find(LATENCY, inputs)
        if known is None:
            if self._timed_s > TIMING_S and not always:
                return None
            self.context.say(f"timing {fitted.mix}")
            try:
                times = self._times(fitted)
            except BrokenPictureError:
                return None
            known = {"seconds": float(np.median(times[1:] or times)), "spent": sum(times)}
            ledger.record(LATENCY, inputs, known)
        self._timed_s += float(known.get("spent", known["seconds"]))
        self.timed.add(fitted.mix)
        return float(known["seconds"])

    def tiled_difference(self, fitted: Fitted) -> int | None:
        """By how many levels of 255 a picture in tiles differs from the same decoded at once.

        Of a fitted mix whose decoder works in tiles; of others None.

        Raises:
            BrokenPictureError: in tiles it is not finite, or constant.
        """
        mix, tile = fitted.mix, fitted.placement.tile
        if tile is None:
            return None
        whole, ledger = self.specs.of(mix), self.context.ledger
        inputs = {**self.runner.inputs(whole, [0]), "tile": tile}
        known = ledger.find(TILED_DIFFERENCE, inputs)
        if known is None:
            self.context.say(f"decoding {mix} in tiles of {tile}")
            at_once, in_tiles = (
                self.runner.pictures(spec, [0]).astype(int)
                for spec in (whole, self.specs.in_tiles(mix, tile))
            )
            known = {"levels": int(np.abs(at_once - in_tiles).max())}
            ledger.record(TILED_DIFFERENCE, inputs, known)
        return int(known["levels"])

    def _times(self, fitted: Fitted) -> list[float]:
        tile = fitted.placement.tile
        spec = self.specs.of(fitted.mix)
        if tile is not None:
            spec = self.specs.in_tiles(fitted.mix, tile)
        resident = replace(fitted.placement, loading=Loading.RESIDENT)
        return self.runner.times(spec, resident, 1 + TIMED_PICTURES, SLOW_S)

    def _latency_inputs(self, fitted: Fitted) -> dict[str, Any]:
        placement = fitted.placement
        return {
            **self.runner.inputs(self.specs.of(fitted.mix), [0]),
            "guidance": placement.guidance,
            "tile": placement.tile,
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        }
