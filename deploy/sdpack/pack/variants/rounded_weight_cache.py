"""Rounded weights of the parts of a request, all the schemes it will ask for in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sdpack.domain.precision import Precision, computed_in
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.calibration import Calibration
from sdpack.pack.variants.source_graphs import SourceGraphs, part_words
from sdpack.progress import counted, within
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.rounded_weights import RoundedWeights, fill
from sdpack.quantization.schemes import ABILITIES, UNIFORM, Scheme
from sdpack.quantization.variant import scale_type, suited_schemes
from sdpack.rewrite.onnx_file import MODEL_FILE, read
from sdpack.store.artifacts import Artifact

SHELF = 64_000_000  # numbers rounded before they are kept: half a minute on two cores


@dataclass(frozen=True)
class WeightChunk:
    """Layers of a part that are rounded and kept together; an interruption costs one chunk.

    Attributes:
        place: of how many (`of`).
        inputs: what its rounded weights depend on besides their scheme.
    """

    names: tuple[str, ...]
    place: int
    of: int
    inputs: Mapping[str, Any]


@dataclass
class RoundedWeightCache:
    """Rounds what the variants of a request are made of, each layer in each scheme once."""

    sources: SourceGraphs
    calibration: Calibration
    _runs: dict[str, list[tuple[str, ...]]] = field(default_factory=dict, init=False)
    _read: tuple[str, list[Layer]] | None = field(default=None, init=False)

    def of(self, variant: Variant, scheme: Scheme) -> RoundedWeights:
        """A variant's layers, each in this scheme as it can have it.

        Those are in it, too, that can have it only with their inputs rounded. What other precisions
        of the order will ask for is rounded along with it.
        """
        stored = replace(scheme, inputs=False)
        together = sorted({stored, *self._asked_for(variant)})
        try:
            folders = [self._folder(variant, s, stored, together) for s in self._chunks(variant)]
        finally:
            self._read = None  # what was read of its weights can be let go
        return RoundedWeights(tuple(folders))

    def _folder(
        self, variant: Variant, chunk: WeightChunk, stored: Scheme, together: Sequence[Scheme]
    ) -> Path:
        missing = [scheme for scheme in together if self._find(chunk, scheme) is None]
        if stored in missing:
            self._make_all(variant, chunk, missing, {})
        return self._make(variant, chunk, stored, (), {}).folder

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
            for precision in self.sources.request.precisions
            if precision in UNIFORM and computed_in(runtime, precision) is arithmetic
        }

    def _chunks(self, variant: Variant) -> list[WeightChunk]:
        graph, inputs = self.sources.graph(variant).content, self.inputs(variant)
        if graph not in self._runs:
            self._runs[graph] = chunked(self._layers(variant), SHELF)
        runs = self._runs[graph]
        return [
            WeightChunk(names, place, len(runs), {**inputs, "layers": names})
            for place, names in enumerate(runs)
        ]

    def _layers(self, variant: Variant) -> list[Layer]:
        """A graph's layers, read once for all chunks: that of SDXL's UNet takes two seconds."""
        graph = self.sources.graph(variant)
        if self._read is None or self._read[0] != graph.content:
            self._read = graph.content, layers(read(graph.path(MODEL_FILE)))
        return self._read[1]

    @staticmethod
    def _key(chunk: WeightChunk, scheme: Scheme) -> dict[str, Any]:
        return {**chunk.inputs, "number": scheme.number, "block": scheme.block}

    def _find(self, chunk: WeightChunk, scheme: Scheme) -> Artifact | None:
        return self.sources.store.find("rounded", self._key(chunk, scheme))

    def _make_all(
        self,
        variant: Variant,
        chunk: WeightChunk,
        left: Sequence[Scheme],
        begun: Mapping[Path, Scheme],
    ) -> None:
        """Fill the schemes that are begun, and those left to begin, in one pass over a chunk.

        They are begun in one order by every process, so that none waits for another in a ring.
        """
        if left:
            self._make(variant, chunk, left[0], left[1:], begun)
        else:
            self._fill(variant, chunk, begun)

    def _make(
        self,
        variant: Variant,
        chunk: WeightChunk,
        scheme: Scheme,
        left: Sequence[Scheme],
        begun: Mapping[Path, Scheme],
    ) -> Artifact:
        def build(folder: Path) -> None:
            self._make_all(variant, chunk, left, {**begun, folder: scheme})
            if not RoundedWeights(
                (folder,)
            ).is_filled:  # another process has made one of those left
                self._fill(variant, chunk, {folder: scheme})

        return self.sources.store.make("rounded", self._key(chunk, scheme), build)

    def _fill(
        self, variant: Variant, chunk: WeightChunk, schemes_by_folder: Mapping[Path, Scheme]
    ) -> None:
        stored = " and ".join(map(str, schemes_by_folder.values()))
        step = counted(self.sources.say, f"rounding {part_words(variant)} to {stored}")
        self.sources.make_room(variant)
        path = self.sources.graph(variant).path(MODEL_FILE)
        found = [layer for layer in self._layers(variant) if layer.name in chunk.names]
        abilities = replace(ABILITIES[self.sources.profile.runtime], packed_attention=True)
        chosen = {
            folder: suited_schemes(path, found, {x.name: scheme for x in found}, abilities).values()
            for folder, scheme in schemes_by_folder.items()
        }
        scales = scale_type(self._arithmetic(variant))
        observed = self.calibration.observed(variant)
        fill(chosen, observed, scales, within(step, chunk.place, chunk.of))


def chunked(found: Sequence[Layer], most: int) -> list[tuple[str, ...]]:
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
