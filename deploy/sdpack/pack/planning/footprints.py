"""What each variant takes on the device, by the best that can be known of its runtime here.

TensorRT-RTX         the builder's own plan of the engine that ships, and its inputs and outputs
ONNX Runtime, CPU    a process that runs the part alone, measured
ONNX Runtime, GPU    the graph: its weights as stored, and the tensors alive at once, by what such
                     parts were seen to take on an H200
others               the graph, as it is; their engines are made on the device

`verify` measures on the device.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sdpack.documents.manifest import Foresight
from sdpack.domain.placement import Placement
from sdpack.domain.precision import Runtime
from sdpack.domain.tiles import LATENTS
from sdpack.errors import UnsupportedGraphError
from sdpack.memory.liveness import liveness, passed_bytes
from sdpack.memory.predict import Footprint
from sdpack.memory.probe import Probe, probe, probe_tiled, process_bytes
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.shapes import Piece, Sizes
from sdpack.pack.variants.source_graphs import split_of, stored_bytes, versions
from sdpack.pack.variants.variant_builder import VariantBuilder

# What parts in ONNX Runtime took of an H200 beyond their weights (docs/gpu.md): three in one
# process 496 MiB where tensors are small, cuBLAS's and cuDNN's own; and at 512 x 512 pixels up to
# 4.3 times the tensors that are alive at once in a UNet, 3.0 times in a decoder, as they lie in one
# block, less tightly, and convolutions need scratch.
CUDA_SESSION_BYTES = 165 * 2**20
CUDA_TIMES_LIVE = 4
LEAST_SHARE = 0.9  # of a file is on the device at least; of SDXL's parts engines held 99.6 %
REVISION = 5  # of this module's ways to measure; a change makes earlier figures strangers


@dataclass
class Footprints:
    """Footprints of a request's variants, each found once."""

    builder: VariantBuilder
    _known: dict[tuple[Variant, Placement], Footprint | UnsupportedGraphError] = field(
        default_factory=dict, init=False
    )
    _passed: dict[tuple[Path, tuple[tuple[str, Sizes], ...]], int] = field(
        default_factory=dict, init=False
    )

    @property
    def foresight(self) -> Foresight:
        """Where the figures come from."""
        match self.builder.profile.runtime:
            case Runtime.TENSORRT_RTX:
                return Foresight.PLAN
            case Runtime.ONNXRUNTIME_CPU:
                return Foresight.PROBE
        return Foresight.GRAPH

    def of(self, variant: Variant, placement: Placement) -> Footprint:
        """What a variant takes under a placement.

        Raises:
            UnsupportedGraphError: the compiler does not take it so.
        """
        key = (variant, placement)
        if key not in self._known:
            try:
                self._known[key] = self._find(variant, placement)
            except UnsupportedGraphError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, UnsupportedGraphError):
            raise found
        return found

    def least_bytes(self, variant: Variant) -> int:
        """What a variant takes at least while it is loaded: on a GPU nearly what its file holds.

        On a CPU only what is read of a file counts, such as a few rows of a table.
        """
        if self.foresight is Foresight.PROBE:
            return 0
        return int(LEAST_SHARE * stored_bytes(self.builder.made(variant).artifact))

    def size_bytes(self, mix: Mix) -> int | None:
        """What "smaller" means where peaks are measured and vary: the files. None elsewhere."""
        if self.foresight is not Foresight.PROBE:
            return None
        return sum(stored_bytes(self.builder.made(variant).artifact) for variant in mix.variants)

    @property
    def fixed_bytes(self) -> int:
        """What the process takes whatever the mix; on a GPU the profile's reserve holds it."""
        if self.foresight is not Foresight.PROBE:
            return 0
        encoder = next(iter(self.builder.located.catalog.text_encoders))
        inputs = {"tokenizer": self.builder.tokenizer_content(encoder)}
        known = self._remembered("process", inputs)
        if known is None:
            known = {"bytes": process_bytes(self.builder.tokenizer_folder(encoder))}
            self._remember("process", inputs, known)
        return int(known["bytes"])

    def _find(self, variant: Variant, placement: Placement) -> Footprint:
        pieces = self.builder.pieces(variant, placement)
        match self.foresight:
            case Foresight.PLAN:
                return one_after_the_other([self._planned(variant, piece) for piece in pieces])
            case Foresight.PROBE:
                return self._probed(variant, placement, pieces)
        return one_after_the_other([self._read_off(variant, piece) for piece in pieces])

    def _planned(self, variant: Variant, piece: Piece) -> Footprint:
        """A plan's weights and scratch, and its inputs and outputs, which scratch does not hold."""
        plan = self.builder.plan(variant, piece)
        path = self._graph(variant, piece)
        key = (path, tuple(sorted(piece.largest.items())))
        if key not in self._passed:
            model = ir.load(path)
            self._passed[key] = passed_bytes(model, _bindings(model, piece.largest))
        return Footprint(plan.weight_bytes, plan.activation_bytes + self._passed[key])

    def _graph(self, variant: Variant, piece: Piece) -> Path:
        return self.builder.made(variant).artifact.path(piece.file)

    def _probed(self, variant: Variant, placement: Placement, pieces: Sequence[Piece]) -> Footprint:
        made = self.builder.made(variant)
        if len(pieces) == 1:
            shapes = {name: list(shape) for name, shape in pieces[0].largest.items()}
            inputs: dict[str, Any] = {"graph": made.artifact.content, "shapes": shapes}
            return self._seen(variant, inputs, lambda: probe(made.path, pieces[0].largest))
        split, tile = split_of(made.artifact), placement.tile
        assert split is not None
        assert tile is not None
        stem, tail = (self._graph(variant, piece) for piece in pieces)
        found = []
        for latents in self.builder.shapes.tiled_latents(variant, placement, split):
            shapes = {LATENTS: list(latents)}
            inputs = {"graph": made.artifact.content, "shapes": shapes, "tile": tile}
            look = partial(probe_tiled, stem, tail, split, tile, {LATENTS: latents})
            found.append(self._seen(variant, inputs, look))
        return Footprint(*(max(each) for each in zip(*map(astuple, found), strict=True)))

    def _seen(
        self, variant: Variant, inputs: Mapping[str, Any], look: Callable[[], Probe]
    ) -> Footprint:
        """What a probe sees, looked at once."""
        known = self._remembered("footprint", inputs)
        if known is None:
            self.builder.say(f"measuring the memory of {variant}")
            known = asdict(look())
            self._remember("footprint", inputs, known)
        return Probe(**known).footprint

    def _remembered(self, kind: str, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        return self.builder.ledger.find(kind, {**inputs, **self._here()})

    def _remember(self, kind: str, inputs: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        self.builder.ledger.record(kind, {**inputs, **self._here()}, value)

    def _here(self) -> dict[str, Any]:
        """What a measured figure depends on besides what was measured."""
        return {
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "tools": versions(("onnxruntime", "numpy")),
            "revision": REVISION,
        }

    def _read_off(self, variant: Variant, piece: Piece) -> Footprint:
        found = graph_footprint(ir.load(self._graph(variant, piece)), piece.largest)
        if self.builder.profile.runtime is not Runtime.ONNXRUNTIME_CUDA:
            return found
        live = CUDA_TIMES_LIVE * found.activation_bytes
        return Footprint(found.weight_bytes, live, session_bytes=CUDA_SESSION_BYTES)


def one_after_the_other(footprints: Sequence[Footprint]) -> Footprint:
    """Of pieces that are loaded together, and run one at a time."""
    return Footprint(
        sum(footprint.weight_bytes for footprint in footprints),
        max(footprint.activation_bytes for footprint in footprints),
        session_bytes=sum(footprint.session_bytes for footprint in footprints),
    )


def graph_footprint(model: ir.Model, shapes: Mapping[str, Sizes]) -> Footprint:
    """Stored weights and live tensors of a graph at these input shapes; the model is changed."""
    weights = sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
    return Footprint(weights, liveness(model, _bindings(model, shapes)).peak_bytes)


def _bindings(model: ir.Model, shapes: Mapping[str, Sizes]) -> dict[str, int]:
    """The graph's symbolic sizes, as its inputs' shapes give them."""
    bindings: dict[str, int] = {}
    for value in model.graph.inputs:
        for size, number in zip(value.shape or (), shapes.get(str(value.name), ()), strict=False):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                bindings[size.value] = number
    return bindings
