"""What each variant takes on the device, by the best that can be known of its runtime here.

TensorRT-RTX         the builder's own plan of the engine that ships, and its inputs and outputs
ONNX Runtime, CPU    a process that runs the part alone, measured
others               the graph: its weights as stored, and the tensors alive at once; their
                     engines are made on the device, where `verify` measures
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx_ir as ir

from sdpack.bundle import Foresight
from sdpack.errors import RefusedError
from sdpack.memory.liveness import liveness, passed_bytes
from sdpack.memory.predict import Footprint
from sdpack.memory.probe import Probe, probe, process_bytes
from sdpack.onnx_file import MODEL_FILE
from sdpack.pack.mix import Mix, Variant
from sdpack.pack.shapes import Sizes
from sdpack.pack.sources import versions
from sdpack.pack.workshop import Workshop
from sdpack.placement import Placement
from sdpack.precision import Runtime

REVISION = 4  # of this module's ways to measure; a change makes earlier figures strangers


@dataclass
class Footprints:
    """Footprints of one order's variants, each found once."""

    workshop: Workshop
    _known: dict[tuple[Variant, Placement], Footprint | RefusedError] = field(
        default_factory=dict, init=False
    )
    _graphs: dict[str, ir.Model] = field(default_factory=dict, init=False)

    @property
    def foresight(self) -> Foresight:
        """Where the figures come from."""
        match self.workshop.profile.runtime:
            case Runtime.TENSORRT_RTX:
                return Foresight.PLAN
            case Runtime.ONNXRUNTIME_CPU:
                return Foresight.PROBE
        return Foresight.GRAPH

    def of(self, variant: Variant, placement: Placement) -> Footprint:
        """What a variant takes under a placement.

        Raises:
            RefusedError: the compiler does not take it so.
        """
        key = (variant, placement)
        if key not in self._known:
            try:
                self._known[key] = self._find(variant, placement)
            except RefusedError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, RefusedError):
            raise found
        return found

    def size_bytes(self, mix: Mix) -> int | None:
        """What "smaller" means where peaks are measured and vary: the files. None elsewhere."""
        if self.foresight is not Foresight.PROBE:
            return None
        return sum(self.workshop.made(variant).artifact.bytes for variant in mix.variants)

    @property
    def fixed_bytes(self) -> int:
        """What the process takes whatever the mix; on a GPU the profile's reserve holds it."""
        if self.foresight is not Foresight.PROBE:
            return 0
        encoder = next(iter(self.workshop.located.catalog.text_encoders))
        inputs = {"tokenizer": self.workshop.tokenizer_content(encoder)}
        known = self._remembered("process", inputs)
        if known is None:
            known = {"bytes": process_bytes(self.workshop.tokenizer_folder(encoder))}
            self._remember("process", inputs, known)
        return int(known["bytes"])

    def _find(self, variant: Variant, placement: Placement) -> Footprint:
        if self.foresight is Foresight.PLAN:
            plan = self.workshop.plan(variant, placement)
            passed = self._passed_bytes(variant, placement)
            return Footprint(plan.weight_bytes, plan.activation_bytes + passed)
        shapes = self.workshop.shapes.largest(variant, placement)
        if self.foresight is Foresight.PROBE:
            return self._probed(variant, shapes)
        return self._read_off(variant, shapes)

    def _passed_bytes(self, variant: Variant, placement: Placement) -> int:
        """Inputs and outputs, which a plan's scratch does not hold."""
        graph = self.workshop.graph(variant)
        if graph.content not in self._graphs:
            self._graphs[graph.content] = ir.load(graph.path(MODEL_FILE))
        model = self._graphs[graph.content]
        shapes = self.workshop.shapes.largest(variant, placement)
        return passed_bytes(model, _bindings(model, shapes))

    def _probed(self, variant: Variant, shapes: Mapping[str, Sizes]) -> Footprint:
        made = self.workshop.made(variant)
        inputs = {
            "graph": made.artifact.content,
            "shapes": {name: list(shape) for name, shape in shapes.items()},
        }
        known = self._remembered("footprint", inputs)
        if known is None:
            self.workshop.say(f"measuring what {variant} takes")
            known = asdict(probe(made.path, shapes))
            self._remember("footprint", inputs, known)
        return Probe(**known).footprint

    def _remembered(self, kind: str, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        return self.workshop.ledger.find(kind, {**inputs, **self._here()})

    def _remember(self, kind: str, inputs: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        self.workshop.ledger.record(kind, {**inputs, **self._here()}, value)

    def _here(self) -> dict[str, Any]:
        """What a measured figure depends on besides what was measured."""
        return {
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "tools": versions(("onnxruntime", "numpy")),
            "revision": REVISION,
        }

    def _read_off(self, variant: Variant, shapes: Mapping[str, Sizes]) -> Footprint:
        model = ir.load(self.workshop.made(variant).path)
        return graph_footprint(model, shapes)


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
