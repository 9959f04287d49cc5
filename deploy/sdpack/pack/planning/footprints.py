"""How much memory each variant takes on the device, from the best source that each runtime has.

TensorRT-RTX         the plan that ships, which states its memory, plus its inputs and outputs
ONNX Runtime, CPU    measured in a process that runs the part alone
ONNX Runtime, GPU    the graph: the stored weights and the live tensors, scaled by factors that were
                     measured on an H200
others               the graph, without factors, as their engines are built on the device

`sdpack verify` measures the memory on the device.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
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
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import split_of, stored_bytes
from sdpack.pack.variants.shapes import Piece, Sizes
from sdpack.pack.variants.tokenizers import Tokenizers
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.pack.variants.variant_pieces import VariantPieces
from sdpack.version import versions

# Memory of parts in ONNX Runtime on an H200, beyond their weights (docs/gpu.md). Three parts in one
# process took 496 MiB where tensors are small, which cuBLAS and cuDNN hold for themselves. At
# 512 x 512 pixels, a UNet took up to 4.3 times its live tensors, and a decoder 3.0 times: the arena
# packs tensors less tightly, and convolutions need scratch.
CUDA_SESSION_BYTES = 165 * 2**20
CUDA_TIMES_LIVE = 4
LEAST_SHARE = 0.9  # of a file that is surely on the device; engines held 99.6 % of SDXL's parts
REVISION = 5  # of this module's measurements; a change makes earlier figures invalid


@dataclass
class Footprints:
    """Footprints of a request's variants, each determined once."""

    context: BuildContext
    variants: VariantBuilder
    pieces: VariantPieces
    tokenizers: Tokenizers
    _known: dict[tuple[Variant, Placement], Footprint | UnsupportedGraphError] = field(
        default_factory=dict, init=False
    )
    _passed: dict[tuple[Path, tuple[tuple[str, Sizes], ...]], int] = field(
        default_factory=dict, init=False
    )

    @classmethod
    def of_toolchain(cls, toolchain: Toolchain) -> Footprints:
        """The footprints of a build."""
        return cls(toolchain.context, toolchain.variants, toolchain.pieces, toolchain.tokenizers)

    @property
    def foresight(self) -> Foresight:
        """Where the figures come from."""
        match self.context.runtime:
            case Runtime.TENSORRT_RTX:
                return Foresight.PLAN
            case Runtime.ONNXRUNTIME_CPU:
                return Foresight.PROBE
        return Foresight.GRAPH

    def of(self, variant: Variant, placement: Placement) -> Footprint:
        """The footprint of a variant in a placement.

        Raises:
            UnsupportedGraphError: the compiler rejects the variant in this placement.
        """
        key = (variant, placement)
        if key not in self._known:
            try:
                self._known[key] = self._find(variant, placement)
            except UnsupportedGraphError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, UnsupportedGraphError):
            raise known
        return known

    def prepare(self, variants: Collection[Variant], placement: Placement) -> None:
        """Compile in parallel the plans that state these footprints."""
        if self.foresight is not Foresight.PLAN:
            return
        new = [variant for variant in variants if (variant, placement) not in self._known]
        if len(new) > 1:
            self.pieces.prepare(sorted(new, key=str), placement)

    def least_bytes(self, variant: Variant) -> int:
        """The least bytes that a loaded variant takes: on a GPU, nearly the size of its file.

        On a CPU it is 0: only the pages that are read count, such as a few rows of an embedding
        table.
        """
        if self.foresight is Foresight.PROBE:
            return 0
        return int(LEAST_SHARE * stored_bytes(self.variants.built(variant).artifact))

    def size_bytes(self, mix: Mix) -> int | None:
        """The size of a mix's files, where peaks are measured and vary; None elsewhere.

        It decides between mixes of equal quality (`fit`).
        """
        if self.foresight is not Foresight.PROBE:
            return None
        return sum(stored_bytes(self.variants.built(variant).artifact) for variant in mix.variants)

    @property
    def fixed_bytes(self) -> int:
        """Bytes that the process takes with any mix; on a GPU, the profile's reserve has them."""
        if self.foresight is not Foresight.PROBE:
            return 0
        catalog = self.context.catalog
        encoder = next(iter(catalog.text_encoders))

        def measure() -> dict[str, Any]:
            tokenizers = self.tokenizers
            folder, tokens = tokenizers.folder(encoder), tokenizers.kept_length(encoder)
            return {"bytes": process_bytes(folder, tokens)}

        inputs = {"tokenizer": self.tokenizers.content(encoder)}
        return int(self._measured_once("process", inputs, measure)["bytes"])

    def _find(self, variant: Variant, placement: Placement) -> Footprint:
        pieces = self.pieces.of(variant, placement)
        match self.foresight:
            case Foresight.PLAN:
                return one_after_the_other([self._planned(variant, piece) for piece in pieces])
            case Foresight.PROBE:
                return self._probed(variant, placement, pieces)
        return one_after_the_other([self._from_graph(variant, piece) for piece in pieces])

    def _planned(self, variant: Variant, piece: Piece) -> Footprint:
        """A plan's weights and scratch, and its inputs and outputs, which scratch excludes."""
        plan = self.pieces.plan(variant, piece)
        path = self._graph(variant, piece)
        key = (path, tuple(sorted(piece.largest.items())))
        if key not in self._passed:
            model = ir.load(path)
            self._passed[key] = passed_bytes(model, graph_bindings(model, piece.largest))
        return Footprint(plan.weight_bytes, plan.activation_bytes + self._passed[key])

    def _graph(self, variant: Variant, piece: Piece) -> Path:
        return self.variants.built(variant).artifact.path(piece.file)

    def _probed(self, variant: Variant, placement: Placement, pieces: Sequence[Piece]) -> Footprint:
        built = self.variants.built(variant)
        if len(pieces) == 1:
            shapes = {name: list(shape) for name, shape in pieces[0].largest.items()}
            inputs: dict[str, Any] = {"graph": built.artifact.content, "shapes": shapes}
            return self._measured(variant, inputs, lambda: probe(built.path, pieces[0].largest))
        split, tile = split_of(built.artifact), placement.tile
        assert split is not None
        assert tile is not None
        stem, tail = (self._graph(variant, piece) for piece in pieces)
        footprints = []
        input_shapes = self.pieces.shapes
        for latents in input_shapes.tiled_latents(variant, placement, split):
            shapes = {LATENTS: list(latents)}
            inputs = {"graph": built.artifact.content, "shapes": shapes, "tile": tile}
            run = partial(probe_tiled, stem, tail, split, tile, {LATENTS: latents})
            footprints.append(self._measured(variant, inputs, run))
        return Footprint(*(max(each) for each in zip(*map(astuple, footprints), strict=True)))

    def _measured(
        self, variant: Variant, inputs: Mapping[str, Any], run: Callable[[], Probe]
    ) -> Footprint:
        """The footprint that a probe measures; each probe is run once."""

        def measure() -> dict[str, Any]:
            self.context.say(f"measuring the memory of {variant}")
            return asdict(run())

        return Probe(**self._measured_once("footprint", inputs, measure)).footprint

    def _measured_once(
        self, kind: str, inputs: Mapping[str, Any], measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """A measurement on this machine, from the ledger if it is there."""
        ledger, inputs = self.context.ledger, {**inputs, **self._here()}
        known = ledger.find(kind, inputs)
        if known is None:
            known = measure()
            ledger.record(kind, inputs, known)
        return known

    def _here(self) -> dict[str, Any]:
        """Everything that a measurement depends on, except the graph and its inputs."""
        return {
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "tools": versions(("onnxruntime", "numpy")),
            "revision": REVISION,
        }

    def _from_graph(self, variant: Variant, piece: Piece) -> Footprint:
        footprint = graph_footprint(ir.load(self._graph(variant, piece)), piece.largest)
        if self.context.runtime is not Runtime.ONNXRUNTIME_CUDA:
            return footprint
        live = CUDA_TIMES_LIVE * footprint.activation_bytes
        return Footprint(footprint.weight_bytes, live, session_bytes=CUDA_SESSION_BYTES)


def one_after_the_other(footprints: Sequence[Footprint]) -> Footprint:
    """The footprint of pieces that are loaded together and run one at a time."""
    return Footprint(
        sum(footprint.weight_bytes for footprint in footprints),
        max(footprint.activation_bytes for footprint in footprints),
        session_bytes=sum(footprint.session_bytes for footprint in footprints),
    )


def graph_footprint(model: ir.Model, shapes: Mapping[str, Sizes]) -> Footprint:
    """The stored weights and live tensors of a graph at these input shapes.

    It changes the model.
    """
    initializers = model.graph.initializers
    weights = sum(
        value.const_value.nbytes for value in initializers.values() if value.const_value is not None
    )
    return Footprint(weights, liveness(model, graph_bindings(model, shapes)).peak_bytes)


def graph_bindings(model: ir.Model, shapes: Mapping[str, Sizes]) -> dict[str, int]:
    """The values of the graph's symbolic dimensions at these input shapes."""
    bindings: dict[str, int] = {}
    for value in model.graph.inputs:
        for size, number in zip(value.shape or (), shapes.get(str(value.name), ()), strict=False):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                bindings[size.value] = number
    return bindings
