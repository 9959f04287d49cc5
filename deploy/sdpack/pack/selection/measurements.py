"""Measurements of a mix other than its score: latency, distance to real images, effect of tiles."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

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
SLOW_S = 10.0  # an image that takes longer is timed only once
TIMING_S = 30.0  # total time for timing mixes; when it is used up, no other mix is timed
TILED_DIFFERENCE = "tiled difference"


@dataclass
class Measurements:
    """Measures the mixes of one build; nothing that is in the ledger is measured again.

    Attributes:
        timed: the mixes whose latency is known.
        distances: the mixes whose distance to real images is known, with the number of prompts.
    """

    context: BuildContext
    specs: PipelineSpecs
    runner: EvaluationRunner
    judging: CatalogJudge
    timed: set[Mix] = field(default_factory=set, init=False)
    distances: dict[Mix, int] = field(default_factory=dict, init=False)
    _timed_s: float = field(default=0.0, init=False)

    def distance(self, mix: Mix, chunks: Sequence[Sequence[int]], of: int) -> Estimate:
        """KID between the images of a mix and all real images.

        Args:
            chunks: the numbers of the prompts, in the chunks in which they were drawn.
            of: the number of real images on the catalog's sheet.
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
            self.context.say(f"comparing {mix} with real images")
            images = [self.runner.pictures(spec, list(chunk)) for chunk in chunks]
            features = self.judging.features(np.concatenate(images))
            known = asdict(kid(features, self.judging.real_features))
            ledger.record(DISTANCE, inputs, known)
        return Estimate(**known)

    def latency_s(self, fitted: Fitted, always: bool = False) -> float | None:
        """Seconds per image of a fitted mix on this machine, without loading.

        Returns None if the mix draws broken images. Without `always`, it also returns None if the
        latency is unknown and other mixes have used up the time for timing.
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
        """The largest difference between an image decoded in tiles and decoded at once.

        It is in levels of 255; None for a fitted mix whose decoder does not work in tiles.

        Raises:
            BrokenPictureError: the image decoded in tiles is not finite, or constant.
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
