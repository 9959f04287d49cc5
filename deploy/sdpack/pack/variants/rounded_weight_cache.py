"""Rounded weights of the parts of a request; all schemes it will need are rounded in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sdpack.domain.precision import Precision, computed_in
from sdpack.engines.onnxruntime import make_room_for
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.calibration import Calibration
from sdpack.progress import counted, within
from sdpack.quantization.layers import Layer
from sdpack.quantization.quantizable_graph import Fp32Graph
from sdpack.quantization.rounded_weights import RoundedWeights, fill
from sdpack.quantization.schemes import UNIFORM, Scheme
from sdpack.quantization.variant import scale_type, suited_schemes
from sdpack.store.artifacts import Artifact

KIND = "rounded"
CHUNK_NUMBERS = 64_000_000  # weights that are rounded at a time: half a minute on two cores


@dataclass(frozen=True)
class WeightChunk:
    """Layers of a graph that are rounded together and kept; an interruption costs one chunk.

    Attributes:
        place, of: its index among the graph's chunks, and their number.
        inputs: everything that determines its rounded weights, except their scheme.
    """

    names: tuple[str, ...]
    place: int
    of: int
    inputs: Mapping[str, Any]

    def key(self, scheme: Scheme) -> dict[str, Any]:
        """Everything that determines the chunk's rounded weights in a scheme."""
        return {**self.inputs, "number": scheme.number, "block": scheme.block}


@dataclass
class RoundedWeightCache:
    """Rounds the layers of a request's graphs, each layer in each scheme once."""

    context: BuildContext
    calibration: Calibration
    _names: dict[str, list[tuple[str, ...]]] = field(default_factory=dict, init=False)
    _layers: tuple[str, list[Layer]] | None = field(default=None, init=False)

    def of(self, variant: Variant, scheme: Scheme) -> RoundedWeights:
        """A variant's layers in a scheme, each in the form that the layer supports.

        Layers that support the scheme only with rounded inputs are included. If a chunk is missing,
        it is also rounded to the schemes of the request's other precisions in the same pass.
        """
        stored = replace(scheme, inputs=False)
        try:
            chunks = [self._rounded(variant, chunk, stored) for chunk in self._chunks(variant)]
        finally:
            self._layers = None  # releases the weights that were read
        return RoundedWeights(tuple(chunk.folder for chunk in chunks))

    def inputs(self, variant: Variant, rounded: bool = True) -> dict[str, Any]:
        """Everything that determines rounded weights, except their schemes.

        Args:
            rounded: whether any weights are rounded; if not, no calibration is needed.
        """
        return {
            "graph": self._graph(variant).content,
            "observed": self.calibration.content(variant) if rounded else None,
            "scales": str(scale_type(self._arithmetic(variant))),
            "abilities": asdict(self.context.abilities),
        }

    def _rounded(self, variant: Variant, chunk: WeightChunk, stored: Scheme) -> Artifact:
        store = self.context.store
        known = store.find(KIND, chunk.key(stored))
        if known is not None:
            return known
        wanted = sorted({stored, *self._uniform_schemes(variant)})
        schemes = [s for s in wanted if s == stored or store.find(KIND, chunk.key(s)) is None]

        def build(folders: Mapping[int, Path]) -> None:
            self._fill(variant, chunk, {path: schemes[place] for place, path in folders.items()})

        artifacts = store.make_together(KIND, [chunk.key(scheme) for scheme in schemes], build)
        return artifacts[schemes.index(stored)]

    def _uniform_schemes(self, variant: Variant) -> set[Scheme]:
        """The schemes of the request's precisions that need scales of the variant's type."""
        runtime, arithmetic = self.context.runtime, self._arithmetic(variant)
        return {
            replace(UNIFORM[precision], inputs=False)
            for precision in self.context.precisions
            if precision in UNIFORM and computed_in(runtime, precision) is arithmetic
        }

    def _arithmetic(self, variant: Variant) -> Precision:
        return computed_in(self.context.runtime, variant.precision)

    def _graph(self, variant: Variant) -> Fp32Graph:
        return self.calibration.of(variant).graph

    def _chunks(self, variant: Variant) -> list[WeightChunk]:
        content, inputs = self._graph(variant).content, self.inputs(variant)
        if content not in self._names:
            self._names[content] = chunked(self._layers_of(variant), CHUNK_NUMBERS)
        chunks = self._names[content]
        return [
            WeightChunk(names, place, len(chunks), {**inputs, "layers": names})
            for place, names in enumerate(chunks)
        ]

    def _layers_of(self, variant: Variant) -> list[Layer]:
        """A graph's layers, read once for all chunks: SDXL's UNet takes two seconds."""
        graph = self._graph(variant)
        if self._layers is None or self._layers[0] != graph.content:
            self._layers = graph.content, graph.layers()
        return self._layers[1]

    def _fill(self, variant: Variant, chunk: WeightChunk, schemes: Mapping[Path, Scheme]) -> None:
        """Round a chunk to each scheme.

        Args:
            schemes: the scheme for each folder.
        """
        graph, names = self._graph(variant), " and ".join(map(str, schemes.values()))
        step = counted(self.context.say, f"rounding {variant.part_name} to {names}")
        make_room_for(graph.bytes)
        members = [layer for layer in self._layers_of(variant) if layer.name in chunk.names]
        abilities = replace(self.context.abilities, packed_attention=True)
        forms = {
            folder: suited_schemes(
                graph.path, members, dict.fromkeys(chunk.names, scheme), abilities
            ).values()
            for folder, scheme in schemes.items()
        }
        scales = scale_type(self._arithmetic(variant))
        observed = self.calibration.observed(variant)
        fill(forms, observed, scales, within(step, chunk.place, chunk.of))


def chunked(layers: Sequence[Layer], most: int) -> list[tuple[str, ...]]:
    """The layers' names in chunks of at most `most` numbers; a larger layer has its own chunk."""
    chunks: list[tuple[str, ...]] = []
    numbers = most
    for layer in layers:
        if numbers + layer.size > most:
            chunks.append(())
            numbers = 0
        chunks[-1] = (*chunks[-1], layer.name)
        numbers += layer.size
    return chunks
