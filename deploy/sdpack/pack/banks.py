"""Rounded weights of the parts of one order, all the schemes it will ask for in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sdpack.artifacts import Artifact
from sdpack.onnx_file import MODEL_FILE, read
from sdpack.pack.calibration import Calibration
from sdpack.pack.mix import Variant
from sdpack.pack.sources import Sources, part_words
from sdpack.precision import Precision, computed_in
from sdpack.progress import counted, within
from sdpack.quantize.bank import Bank, fill
from sdpack.quantize.layers import Layer, layers
from sdpack.quantize.schemes import ABILITIES, UNIFORM, Scheme
from sdpack.quantize.variant import scale_type, suited_schemes

SHELF = 64_000_000  # numbers rounded before they are kept: half a minute on two cores


@dataclass(frozen=True)
class Shelf:
    """Layers of a part that are rounded and kept together; an interruption costs one shelf.

    Attributes:
        place: of how many (`of`).
        inputs: what its rounded weights depend on besides their scheme.
    """

    names: tuple[str, ...]
    place: int
    of: int
    inputs: Mapping[str, Any]


@dataclass
class Banks:
    """Rounds what the variants of one order are made of, each layer in each scheme once."""

    sources: Sources
    calibration: Calibration
    _runs: dict[str, list[tuple[str, ...]]] = field(default_factory=dict, init=False)
    _read: tuple[str, list[Layer]] | None = field(default=None, init=False)

    def of(self, variant: Variant, scheme: Scheme) -> Bank:
        """A variant's layers, each in this scheme as it can have it.

        Those are in it, too, that can have it only with their inputs rounded. What other precisions
        of the order will ask for is rounded along with it.
        """
        stored = replace(scheme, inputs=False)
        together = sorted({stored, *self._asked_for(variant)})
        try:
            folders = [self._folder(variant, s, stored, together) for s in self._shelves(variant)]
        finally:
            self._read = None  # what was read of its weights can be let go
        return Bank(tuple(folders))

    def _folder(
        self, variant: Variant, shelf: Shelf, stored: Scheme, together: Sequence[Scheme]
    ) -> Path:
        missing = [scheme for scheme in together if self._find(shelf, scheme) is None]
        if stored in missing:
            self._make_all(variant, shelf, missing, {})
        return self._make(variant, shelf, stored, (), {}).folder

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

    def _shelves(self, variant: Variant) -> list[Shelf]:
        graph, inputs = self.sources.graph(variant).content, self.inputs(variant)
        if graph not in self._runs:
            self._runs[graph] = shelved(self._layers(variant), SHELF)
        runs = self._runs[graph]
        return [
            Shelf(names, place, len(runs), {**inputs, "layers": names})
            for place, names in enumerate(runs)
        ]

    def _layers(self, variant: Variant) -> list[Layer]:
        """A graph's layers, read once for all shelves: that of SDXL's UNet takes two seconds."""
        graph = self.sources.graph(variant)
        if self._read is None or self._read[0] != graph.content:
            self._read = graph.content, layers(read(graph.path(MODEL_FILE)))
        return self._read[1]

    @staticmethod
    def _key(shelf: Shelf, scheme: Scheme) -> dict[str, Any]:
        return {**shelf.inputs, "number": scheme.number, "block": scheme.block}

    def _find(self, shelf: Shelf, scheme: Scheme) -> Artifact | None:
        return self.sources.store.find("rounded", self._key(shelf, scheme))

    def _make_all(
        self,
        variant: Variant,
        shelf: Shelf,
        left: Sequence[Scheme],
        begun: Mapping[Path, Scheme],
    ) -> None:
        """Fill the banks that are begun, and those left to begin, in one pass over a shelf.

        They are begun in one order by every process, so that none waits for another in a ring.
        """
        if left:
            self._make(variant, shelf, left[0], left[1:], begun)
        else:
            self._fill(variant, shelf, begun)

    def _make(
        self,
        variant: Variant,
        shelf: Shelf,
        scheme: Scheme,
        left: Sequence[Scheme],
        begun: Mapping[Path, Scheme],
    ) -> Artifact:
        def build(folder: Path) -> None:
            self._make_all(variant, shelf, left, {**begun, folder: scheme})
            if not Bank((folder,)).is_filled:  # another process has made one of those left
                self._fill(variant, shelf, {folder: scheme})

        return self.sources.store.make("rounded", self._key(shelf, scheme), build)

    def _fill(self, variant: Variant, shelf: Shelf, banks: Mapping[Path, Scheme]) -> None:
        stored = " and ".join(map(str, banks.values()))
        step = counted(self.sources.say, f"rounding {part_words(variant)} to {stored}")
        self.sources.make_room(variant)
        path = self.sources.graph(variant).path(MODEL_FILE)
        found = [layer for layer in self._layers(variant) if layer.name in shelf.names]
        abilities = replace(ABILITIES[self.sources.profile.runtime], packed_attention=True)
        chosen = {
            folder: suited_schemes(path, found, {x.name: scheme for x in found}, abilities).values()
            for folder, scheme in banks.items()
        }
        scales = scale_type(self._arithmetic(variant))
        observed = self.calibration.observed(variant)
        fill(chosen, observed, scales, within(step, shelf.place, shelf.of))


def shelved(found: Sequence[Layer], most: int) -> list[tuple[str, ...]]:
    """The layers' names in runs of at most `most` numbers; a layer of more than that is alone."""
    runs: list[tuple[str, ...]] = []
    held = most
    for layer in found:
        if held + layer.size > most:
            runs.append(())
            held = 0
        runs[-1] = (*runs[-1], layer.name)
        held += layer.size
    return runs
