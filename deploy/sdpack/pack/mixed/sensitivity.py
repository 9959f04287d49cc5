"""How much a layer in a scheme changes the image, on one scale for all layers of all parts.

    cost = change of the image per output error of the part
         * output error of the part per error of the layer (`quantization.sensitivity`)
         * error of the layer in the scheme

The first factor is measured end to end: the part's uniform four-bit variant draws some images, and
their change is divided by the sum of the output errors predicted for all its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdpack.domain.precision import Precision, computed_in
from sdpack.pack.context import BuildContext
from sdpack.pack.mixed.layer_options import StorageOption, storage_options
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.calibration import Calibration
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.quantization.quantizable_graph import QUANTIZERS
from sdpack.quantization.schemes import UNIFORM, Abilities, Scheme
from sdpack.quantization.sensitivity import PROBING
from sdpack.quantization.variant import suited_schemes
from sdpack.runtime.pipeline import Pictures
from sdpack.store.artifacts import REVISION
from sdpack.version import versions

KIND = "sensitivity"
PROBED = (Precision.W4, Precision.W8)
PROBE_IMAGES = 16


@dataclass(frozen=True)
class Sensitivity:
    """The measured sensitivity of one part's layers.

    Attributes:
        gains: by layer, the output error of the part per error of the layer.
        scale: the change of the image per output error of the part.
        predicted: output error of the probed variant, as the sum over its layers.
        measured: mean squared change of its images, with pixel values in [0, 1].
    """

    gains: Mapping[str, float]
    scale: float
    predicted: float
    measured: float


@dataclass
class Sensitivities:
    """Measures parts, each once; the results are in the ledger."""

    context: BuildContext
    calibration: Calibration
    variants: VariantBuilder
    _unchanged: tuple[Mix, Pictures] | None = field(default=None, init=False)

    def options(
        self, variant: Variant, schemes: Sequence[Scheme]
    ) -> dict[str, list[StorageOption]]:
        """The schemes that each of a variant's layers supports, by layer.

        The cost is the mean squared change of the image.
        """
        graph, sensitivity = self.calibration.of(variant), self.of(variant)
        arithmetic, abilities = computed_in(self.context.runtime, variant.precision), self.abilities
        errors = graph.rounding_errors(schemes, arithmetic, abilities)
        gains = {name: sensitivity.scale * gain for name, gain in sensitivity.gains.items()}
        return storage_options(graph.layers(), schemes, abilities, gains, errors)

    def of(self, variant: Variant) -> Sensitivity:
        """The sensitivity of the layers of a variant's candidate.

        It is measured with w4, or with w8 if the request does not allow w4.
        """
        probed = self._probed(variant)
        inputs = self._inputs(probed)
        ledger = self.context.ledger
        known = ledger.find(KIND, inputs)
        if known is None:
            known = self._measure(probed)
            ledger.record(KIND, inputs, known)
        return Sensitivity(**known)

    def knows(self, variant: Variant) -> bool:
        """Whether the ledger has it already."""
        ledger = self.context.ledger
        return ledger.find(KIND, self._inputs(self._probed(variant))) is not None

    @property
    def abilities(self) -> Abilities:
        """The schemes that the runtime keeps packed in memory."""
        return self.context.abilities

    def _probed(self, variant: Variant) -> Variant:
        precision = next(each for each in PROBED if each in self.context.precisions)
        return Variant(variant.role, variant.candidate, precision, variant.partner)

    def _inputs(self, probed: Variant) -> dict[str, Any]:
        """Everything that determines a measurement."""
        return {
            "graph": self.calibration.of(probed).graph.content,
            "probed": self.variants.built(probed).artifact.content,
            "observed": self.calibration.content(probed),
            "images": PROBE_IMAGES,
            "probing": PROBING,
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }

    def _measure(self, probed: Variant) -> dict[str, Any]:
        graph, built = self.calibration.of(probed), self.variants.built(probed)
        gains, graphs = graph.gains(), self.variants.graphs
        rounded = graphs.rounded_weights(probed, UNIFORM[probed.precision])
        schemes = self.variants.schemes(probed)
        stored = suited_schemes(graph.path, graph.layers(), schemes, self.abilities)
        predicted = sum(gains[name] * rounded.errors[name] for name in stored if name in gains)
        self.context.say(f"measuring the effect of {probed.full_name} on images")
        measured = self._change(probed, built.path)
        return {
            "gains": gains,
            "scale": measured / predicted if predicted else 0.0,
            "predicted": predicted,
            "measured": measured,
        }

    def _change(self, probed: Variant, path: Path) -> float:
        """The mean squared change of the images, with pixel values in [0, 1]."""
        unchanged = self._in_fp32(probed).astype(np.float64)
        mixes = self.calibration.mixes
        images = mixes.pictures(probed, {probed.role: path}, PROBE_IMAGES)
        return float((((images - unchanged) / 255) ** 2).mean())

    def _in_fp32(self, probed: Variant) -> Pictures:
        """The images of the mix a variant is probed in; most parts share that mix."""
        mixes = self.calibration.mixes
        reference = mixes.of(probed)
        if self._unchanged is None or self._unchanged[0] != reference:
            self._unchanged = reference, mixes.pictures(probed, {}, PROBE_IMAGES)
        return self._unchanged[1]
