"""What storing a layer in a scheme does to the picture, for all layers of all parts on one scale.

    cost = of its part, the change of the picture for the harm done to what the part gives out
         * of the layer, that harm for the error of its outputs (`quantize.sensitivity`)
         * of the scheme, that error

The first is seen end to end: the part's uniform four-bit variant draws some pictures, and what they
are off by is set beside the harm foretold for all its layers together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdpack.onnx_file import MODEL_FILE, read
from sdpack.pack.mix import Variant
from sdpack.pack.sources import REVISION, part_words, versions, words
from sdpack.pack.workshop import QUANTIZERS, Workshop
from sdpack.precision import Precision
from sdpack.quantize.layers import layers
from sdpack.quantize.schemes import UNIFORM, Scheme
from sdpack.quantize.sensitivity import gains, layer_harms
from sdpack.quantize.variant import suited_schemes

PROBED = Precision.W4
PICTURES = 16
ROWS = 16  # of a batch, and batches, that a layer's harm is seen on
BATCHES = 3


@dataclass(frozen=True)
class Sensitivity:
    """What is known of one part's layers.

    Attributes:
        gains: the harm to the part's output for an error of one in the layer's, by layer.
        scale: the change of the picture for a harm of one.
        foretold, seen: harm of the probed variant as the sum of its layers', and the mean squared
            change of its pictures, in [0, 1] a pixel.
    """

    gains: Mapping[str, float]
    scale: float
    foretold: float
    seen: float


class Sensitivities:
    """Measures parts, each once, and keeps what was found in the ledger."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop

    def costs(self, variant: Variant, scheme: Scheme) -> dict[str, float]:
        """Of every layer that can have the scheme, the mean squared change of the picture."""
        found = self.of(variant)
        errors = self.workshop.bank(variant, scheme).errors
        return {n: found.scale * found.gains[n] * errors[n] for n in errors if n in found.gains}

    def of(self, variant: Variant) -> Sensitivity:
        """What is known of the layers of a variant's candidate."""
        probed = Variant(variant.role, variant.candidate, PROBED, variant.partner)
        made = self.workshop.made(probed)
        inputs = {
            "graph": self.workshop.graph(probed).content,
            "probed": made.artifact.content,
            "observed": self.workshop.calibration.content(probed),
            "pictures": PICTURES,
            "rows": [ROWS, BATCHES],
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }
        known = self.workshop.ledger.find("sensitivity", inputs)
        if known is None:
            known = self._measure(probed)
            self.workshop.ledger.record("sensitivity", inputs, known)
        return Sensitivity(**known)

    def _measure(self, probed: Variant) -> dict[str, Any]:
        say = self.workshop.say
        bank = self.workshop.bank(probed, UNIFORM[PROBED])
        batches = [_some_rows(b) for b in _spread(self.workshop.calibration.batches(probed))]
        path = self.workshop.graph(probed).path(MODEL_FILE)
        say(f"finding which layers of {part_words(probed)} matter")
        with self.workshop.store.scratch() as folder:
            harms = layer_harms(path, bank, batches, folder)
        found = gains(harms, bank.errors)
        made = self.workshop.made(probed)
        schemes = self.workshop.schemes(probed, made.refused)
        rounded = suited_schemes(path, layers(read(path)), schemes, self.workshop.abilities)
        foretold = sum(harm for name, harm in harms.items() if name in rounded)
        say(f"seeing what {words(probed)} does to pictures")
        seen = self._change(probed, made.path)
        return {
            "gains": found,
            "scale": seen / foretold if foretold else 0.0,
            "foretold": foretold,
            "seen": seen,
        }

    def _change(self, probed: Variant, path: Path) -> float:
        """The mean squared change of pictures, in [0, 1] a pixel."""
        calibration = self.workshop.calibration
        wanted = calibration.pictures(probed, {}, PICTURES).astype(np.float64)
        seen = calibration.pictures(probed, {probed.role: path}, PICTURES)
        return float((((seen - wanted) / 255) ** 2).mean())


def _spread(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    places = np.linspace(0, len(batches) - 1, min(BATCHES, len(batches))).round()
    return [batches[int(place)] for place in places]


def _some_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """Rows at even distances: of a guided batch both halves."""
    rows = max(len(values) for values in batch.values())
    step = -(-rows // ROWS)
    return {n: values[::step] if len(values) == rows else values for n, values in batch.items()}
