"""How long one part of a pipeline takes: measured here, or predicted for the profile's device."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir

from sdpack.domain.placement import Placement, Role
from sdpack.domain.tiles import LATENTS, STEM_FILE
from sdpack.engines.drawing import drawing_words
from sdpack.engines.onnxruntime import default_threads
from sdpack.engines.session import Session
from sdpack.memory.probe import random_inputs
from sdpack.memory.work import graph_work
from sdpack.pack.candidates import Candidates
from sdpack.pack.latency.roofline import LOAD_BYTES_PER_S, predicted_s
from sdpack.pack.planning.footprints import graph_bindings
from sdpack.pack.planning.mix import Variant
from sdpack.pack.selection.pipeline_specs import PipelineSpecs
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import split_of, stored_bytes
from sdpack.pack.variants.shapes import InputShapes, Piece
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.version import versions

KIND = "part latency"
REVISION = 1  # of these measurements; a change makes earlier figures invalid
RUNS = 3
SLOW_S = 10.0  # a run that takes longer is timed once
TILE_ROUNDS = 3  # the usual number of rounds of a tiled decoder


@dataclass(frozen=True)
class PartTime:
    """Seconds of one part for one image.

    Attributes:
        run_s: seconds of one run on one image; of a denoiser with batched guidance, on both rows.
        load_s: seconds to load it.
    """

    run_s: float
    load_s: float


class PartTimes(Protocol):
    """Times parts.

    Attributes:
        is_measured: whether the times are measured, not predicted.
        where: the machine that the times are of, in words.
    """

    is_measured: bool

    @property
    def where(self) -> str: ...

    def of(self, variant: Variant, placement: Placement) -> PartTime:
        """The time of a variant in a placement."""
        ...


def single_image(toolchain: Toolchain) -> InputShapes:
    """The input shapes of parts that draw one image of the measured size."""
    request = toolchain.request
    one = replace(request, asked_batch=1, asked_sizes=request.sizes[:1])
    tokenizers = toolchain.tokenizers
    return InputShapes(Candidates(one), tokenizers.length, tokenizers.kept_length)


@dataclass
class MeasuredTimes:
    """Times parts with the runtime that ships, on this machine; each once.

    The inputs are random numbers of the right shapes. The time depends on them only in a tiled
    decoder, whose rounds end when its statistics settle.
    """

    toolchain: Toolchain
    is_measured: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self._specs = PipelineSpecs(self.toolchain, with_reference=False)
        self._variants = self.toolchain.variants
        self._shapes = single_image(self.toolchain)
        self._context = self.toolchain.context

    @property
    def where(self) -> str:
        """This machine, in words."""
        cores = len(os.sched_getaffinity(0))
        runtime = drawing_words(self._context.drawn_on, self._context.runtime)
        return f"this machine ({runtime}, {platform.machine()}, {cores} cores)"

    def of(self, variant: Variant, placement: Placement) -> PartTime:
        """The measured time of a variant in a placement."""
        tile = placement.tile if variant.role is Role.DECODER else None
        part = self._specs.part(variant) if tile is None else self._specs.tiled(variant, tile)
        shapes = self._shapes.largest(variant, placement)
        inputs = {
            "part": part.content,
            "shapes": {name: list(sizes) for name, sizes in shapes.items()},
            "on": drawing_words(self._context.drawn_on, self._context.runtime),
            "threads": default_threads(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "tools": versions(("onnxruntime", "numpy")),
            "revision": REVISION,
        }
        ledger = self._context.ledger
        known = ledger.find(KIND, inputs)
        if known is None:
            self._context.say(f"timing {variant.full_name}")
            graph = self._variants.built(variant).artifact
            file = MODEL_FILE if tile is None else STEM_FILE
            known = asdict(timed(part.load, random_inputs(graph.path(file), shapes)))
            ledger.record(KIND, inputs, known)
        return PartTime(**known)


def timed(load: Callable[[], Session], inputs: Mapping[str, Any]) -> PartTime:
    """Load a part and run it on these inputs; the first run does not count, unless it is slow."""
    since = time.perf_counter()
    with load() as session:
        loaded = time.perf_counter() - since
        runs: list[float] = []
        while len(runs) <= RUNS:
            since = time.perf_counter()
            session.run(inputs)
            runs.append(time.perf_counter() - since)
            if runs[-1] > SLOW_S:
                break
    return PartTime(float(np.median(runs[1:] or runs)), loaded)


@dataclass
class PredictedTimes:
    """Predicts the times of parts on the profile's device, each once."""

    toolchain: Toolchain
    is_measured: bool = field(default=False, init=False)
    _known: dict[tuple[Variant, Placement], PartTime] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._shapes = single_image(self.toolchain)
        self._variants, self._pieces = self.toolchain.variants, self.toolchain.pieces
        context = self.toolchain.context
        self._profile = context.profile

    @property
    def where(self) -> str:
        """The device, in words."""
        return f"the device of profile {self._profile.name}"

    def of(self, variant: Variant, placement: Placement) -> PartTime:
        """The predicted time of a variant in a placement.

        Raises:
            ProfileError: the profile states no throughput.
        """
        key = (variant, placement)
        if key not in self._known:
            self._known[key] = self._predicted(variant, placement)
        return self._known[key]

    def _predicted(self, variant: Variant, placement: Placement) -> PartTime:
        graph = self._variants.built(variant).artifact
        split = split_of(graph)
        files = [piece.file for piece in self._pieces.of(variant, placement)]
        pieces = self._shapes.pieces(variant, placement, split, files[0])
        seconds = [self._piece_s(variant, piece) for piece in pieces]
        load_s = stored_bytes(graph) / LOAD_BYTES_PER_S
        if len(seconds) == 1:
            return PartTime(seconds[0], load_s)
        assert split is not None
        assert placement.tile is not None
        latents = self._shapes.largest(variant, placement)[LATENTS]
        count = split.tiles(latents[-2], placement.tile) * split.tiles(latents[-1], placement.tile)
        rounds = min(TILE_ROUNDS, split.norms + 1) if count > 1 else 1
        return PartTime(seconds[0] + rounds * count * seconds[1], load_s)

    def _piece_s(self, variant: Variant, piece: Piece) -> float:
        path = self._variants.built(variant).artifact.path(piece.file)
        model = ir.load(path)
        work = graph_work(model, graph_bindings(model, piece.largest))
        return predicted_s(work, self._profile)
