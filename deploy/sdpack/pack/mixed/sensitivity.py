"""What storing a layer in a scheme does to the picture, for all layers of all parts on one scale.

    cost = of its part, the change of the picture for the harm done to what the part gives out
         * of the layer, that harm for the error of its outputs (`quantize.sensitivity`)
         * of the scheme, that error

The first is seen end to end: the part's uniform four-bit variant draws some pictures, and what they
are off by is set beside the harm foretold for all its layers together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdpack.domain.precision import Precision, computed_in
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.source_graphs import REVISION, part_words, versions, words
from sdpack.pack.variants.variant_builder import QUANTIZERS, VariantBuilder
from sdpack.progress import counted
from sdpack.quantization.layers import LAYERS_REVISION, layers
from sdpack.quantization.rounded_weights import sampled_errors
from sdpack.quantization.rounding import SAMPLED_ROWS
from sdpack.quantization.schemes import UNIFORM, Scheme, suited
from sdpack.quantization.sensitivity import PROBING
from sdpack.quantization.variant import scale_type, suited_schemes
from sdpack.rewrite.onnx_file import MODEL_FILE, read
from sdpack.runtime.pipeline import Pictures

PROBED = (Precision.W4, Precision.W8)
PICTURES = 16


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

    def __init__(self, builder: VariantBuilder) -> None:
        self.builder = builder
        self._wanted: tuple[Mix, Pictures] | None = None

    def costs(
        self, variant: Variant, schemes: Sequence[Scheme]
    ) -> dict[str, dict[Scheme, tuple[Scheme, float]]]:
        """Of every layer and scheme, how the layer can have it, and what that does to the picture.

        That is a mean squared change. Layers that can have none of the schemes are left out.
        """
        found, errors = self.of(variant), self._errors(variant, schemes)
        costs: dict[str, dict[Scheme, tuple[Scheme, float]]] = {}
        for layer in layers(self.builder.model(variant)):
            for scheme in schemes:
                had = suited(layer, scheme, self.builder.abilities)
                if had is not None and layer.name in found.gains:
                    cost = found.scale * found.gains[layer.name] * errors[layer.name][str(had)]
                    costs.setdefault(layer.name, {})[scheme] = (had, cost)
        return costs

    def _errors(self, variant: Variant, schemes: Sequence[Scheme]) -> dict[str, dict[str, float]]:
        """The error of each scheme that a layer can have, by the layer's name."""
        builder = self.builder
        arithmetic = computed_in(builder.profile.runtime, variant.precision)
        inputs = {
            "graph": builder.graph(variant).content,
            "observed": builder.calibration.content(variant),
            "schemes": [str(scheme) for scheme in schemes],
            "scales": str(scale_type(arithmetic)),
            "abilities": asdict(builder.abilities),
            "rows": SAMPLED_ROWS,
            "tools": versions(QUANTIZERS),
            "revision": [REVISION, LAYERS_REVISION],
        }
        known = builder.ledger.find("rounding errors", inputs)
        if known is None:
            doing = f"measuring the rounding error of the layers of {part_words(variant)}"
            step = counted(builder.say, doing)
            observed, known = builder.observed(variant), {}
            found = layers(builder.model(variant))
            for place, layer in enumerate(found):
                step(place, len(found))
                had = {suited(layer, scheme, builder.abilities) for scheme in schemes} - {None}
                asked = sorted(scheme for scheme in had if scheme is not None)
                seen = sampled_errors(layer, asked, observed, scale_type(arithmetic))
                known[layer.name] = {str(scheme): error for scheme, error in seen.items()}
            builder.ledger.record("rounding errors", inputs, known)
        return dict(known)

    def of(self, variant: Variant) -> Sensitivity:
        """What is known of the layers of a variant's candidate.

        It is tried in the narrowest precision of the order's that stores weights in less: others
        a device may not have.
        """
        precision = next(each for each in PROBED if each in self.builder.request.precisions)
        probed = Variant(variant.role, variant.candidate, precision, variant.partner)
        made = self.builder.made(probed)
        inputs = {
            "graph": self.builder.graph(probed).content,
            "probed": made.artifact.content,
            "observed": self.builder.calibration.content(probed),
            "pictures": PICTURES,
            "probing": PROBING,
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }
        known = self.builder.ledger.find("sensitivity", inputs)
        if known is None:
            known = self._measure(probed)
            self.builder.ledger.record("sensitivity", inputs, known)
        return Sensitivity(**known)

    def _measure(self, probed: Variant) -> dict[str, Any]:
        say = self.builder.say
        rounded_weights = self.builder.rounded_weights(probed, UNIFORM[probed.precision])
        path = self.builder.graph(probed).path(MODEL_FILE)
        gains = self.builder.calibration.gains(probed)
        made = self.builder.made(probed)
        schemes = self.builder.schemes(probed, made.refused)
        rounded = suited_schemes(path, layers(read(path)), schemes, self.builder.abilities)
        foretold = sum(
            gains[name] * rounded_weights.errors[name] for name in rounded if name in gains
        )
        say(f"measuring the effect of {words(probed)} on pictures")
        seen = self._change(probed, made.path)
        return {
            "gains": gains,
            "scale": seen / foretold if foretold else 0.0,
            "foretold": foretold,
            "seen": seen,
        }

    def _change(self, probed: Variant, path: Path) -> float:
        """The mean squared change of pictures, in [0, 1] a pixel."""
        wanted = self._in_fp32(probed).astype(np.float64)
        seen = self.builder.calibration.pictures(probed, {probed.role: path}, PICTURES)
        return float((((seen - wanted) / 255) ** 2).mean())

    def _in_fp32(self, probed: Variant) -> Pictures:
        """What the mix a variant is tried in draws; most parts are tried in the same one."""
        calibration = self.builder.calibration
        reference = calibration.reference(probed)
        if self._wanted is None or self._wanted[0] != reference:
            self._wanted = reference, calibration.pictures(probed, {}, PICTURES)
        return self._wanted[1]
