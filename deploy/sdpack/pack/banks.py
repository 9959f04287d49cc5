"""Rounded weights of the parts of one order, all the schemes it will ask for in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sdpack.artifacts import Artifact
from sdpack.onnx_file import MODEL_FILE, read
from sdpack.pack.calibration import Calibration
from sdpack.pack.mix import Variant
from sdpack.pack.sources import Sources, part_words
from sdpack.precision import Precision, computed_in
from sdpack.progress import counted
from sdpack.quantize.bank import Bank, fill
from sdpack.quantize.layers import layers
from sdpack.quantize.schemes import ABILITIES, UNIFORM, Scheme
from sdpack.quantize.variant import scale_type, suited_schemes


@dataclass
class Banks:
    """Rounds what the variants of one order are made of, each layer in each scheme once."""

    sources: Sources
    calibration: Calibration

    def of(self, variant: Variant, scheme: Scheme) -> Bank:
        """A variant's layers, each in this scheme as it can have it.

        Those are in it, too, that can have it only with their inputs rounded. What other precisions
        of the order will ask for is rounded along with it.
        """
        stored = replace(scheme, inputs=False)
        together = sorted({stored, *self._asked_for(variant)})
        missing = [s for s in together if self._find(variant, s) is None]
        if stored in missing:
            self._make_all(variant, missing, {})
        return Bank(self._make(variant, stored, (), {}).folder)

    def inputs(self, variant: Variant, rounded: bool = True) -> dict[str, Any]:
        """What rounded weights depend on besides their schemes.

        Args:
            rounded: whether there are any; without, nothing has to be observed.
        """
        return {
            "graph": self.sources.graph(variant).content,
            "observed": self.calibration.content(variant) if rounded else None,
            "scales": str(scale_type(self._arithmetic(variant))),
            "abilities": asdict(ABILITIES[self.sources.profile.runtime]),
        }

    def _arithmetic(self, variant: Variant) -> Precision:
        return computed_in(self.sources.profile.runtime, variant.precision)

    def _asked_for(self, variant: Variant) -> set[Scheme]:
        """The schemes that the order's precisions store weights in, with the variant's scales."""
        runtime, arithmetic = self.sources.profile.runtime, self._arithmetic(variant)
        return {
            replace(UNIFORM[precision], inputs=False)
            for precision in self.sources.order.precisions
            if precision in UNIFORM and computed_in(runtime, precision) is arithmetic
        }

    def _key(self, variant: Variant, scheme: Scheme) -> dict[str, Any]:
        return {**self.inputs(variant), "number": scheme.number, "block": scheme.block}

    def _find(self, variant: Variant, scheme: Scheme) -> Artifact | None:
        return self.sources.store.find("rounded", self._key(variant, scheme))

    def _make_all(
        self, variant: Variant, left: Sequence[Scheme], begun: Mapping[Path, Scheme]
    ) -> None:
        """Fill the banks that are begun, and those left to begin, in one pass.

        They are begun in one order by every process, so that none waits for another in a ring.
        """
        if left:
            self._make(variant, left[0], left[1:], begun)
        else:
            self._fill(variant, begun)

    def _make(
        self,
        variant: Variant,
        scheme: Scheme,
        left: Sequence[Scheme],
        begun: Mapping[Path, Scheme],
    ) -> Artifact:
        def build(folder: Path) -> None:
            self._make_all(variant, left, {**begun, folder: scheme})
            if not Bank(folder).is_filled:  # another process has made one of those left
                self._fill(variant, {folder: scheme})

        return self.sources.store.make("rounded", self._key(variant, scheme), build)

    def _fill(self, variant: Variant, banks: Mapping[Path, Scheme]) -> None:
        stored = " and ".join(map(str, banks.values()))
        step = counted(self.sources.say, f"rounding {part_words(variant)} to {stored}")
        self.sources.make_room(variant)
        path = self.sources.graph(variant).path(MODEL_FILE)
        found = layers(read(path))
        abilities = replace(ABILITIES[self.sources.profile.runtime], packed_attention=True)
        chosen = {
            folder: suited_schemes(path, found, {x.name: scheme for x in found}, abilities).values()
            for folder, scheme in banks.items()
        }
        scales = scale_type(self._arithmetic(variant))
        fill(chosen, self.calibration.observed(variant), scales, step)
