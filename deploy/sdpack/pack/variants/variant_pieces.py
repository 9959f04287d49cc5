"""The graphs that are loaded for a variant in a placement, and their TensorRT plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sdpack.domain.placement import Placement
from sdpack.domain.precision import Runtime
from sdpack.engines import tensorrt_builder
from sdpack.engines.tensorrt_builder import Plan
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.parallel.tasks import CompilePieces
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.engine_plans import EnginePlans
from sdpack.pack.variants.graph_files import SLICED_FILE, split_of
from sdpack.pack.variants.shapes import InputShapes, Piece
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.store.artifacts import Artifact
from sdpack.workers.jobs import WorkerJob

SLICED_SHARE = 0.75  # of the whole graph's scratch; slices are worth their time only below it


@dataclass
class VariantPieces:
    """Finds the pieces of variants."""

    variants: VariantBuilder
    plans: EnginePlans
    runtime: Runtime

    @property
    def shapes(self) -> InputShapes:
        """The input shapes of every variant."""
        return self.plans.shapes

    def of(self, variant: Variant, placement: Placement) -> tuple[Piece, ...]:
        """The graphs that are loaded for a variant in a placement, in the order in which they run.

        Raises:
            UnsupportedGraphError: the variant does not support the placement.
        """
        graph = self.variants.built(variant).artifact
        if SLICED_FILE not in graph.files:
            return self.shapes.pieces(variant, placement, split_of(graph))
        whole, sliced = (
            self.shapes.pieces(variant, placement, split_of(graph), file)
            for file in (MODEL_FILE, SLICED_FILE)
        )
        most = SLICED_SHARE * self._scratch(variant, whole)
        return sliced if self._scratch(variant, sliced) < most else whole

    def plan(self, variant: Variant, piece: Piece) -> Plan:
        """The TensorRT plan of a piece of a variant.

        Raises:
            UnsupportedGraphError: the compiler rejects the graph; it is compiled at most once.
        """
        return tensorrt_builder.read_plan(self.plan_artifact(variant, piece).folder)

    def prepare(self, variants: Sequence[Variant], placement: Placement) -> None:
        """Compile the plans of variants in a placement in parallel, as far as they compile."""

        context = self.plans.context
        if context.on_cluster:
            context.prepare([self._job(variant, placement) for variant in variants])
        self.plans.in_parallel(lambda variant: self.compile(variant, placement), variants)

    def compile(self, variant: Variant, placement: Placement) -> None:
        """Compile the plans of a variant in a placement, if they compile."""
        with suppress(UnsupportedGraphError):
            for piece in self.of(variant, placement):
                self.plan_artifact(variant, piece)

    def _job(self, variant: Variant, placement: Placement) -> WorkerJob:
        task = CompilePieces(variant, placement, self.variants.built(variant))
        return WorkerJob(f"compiling {variant.full_name}", variant.part_name, task)

    def plan_artifact(self, variant: Variant, piece: Piece) -> Artifact:
        """The artifact of a piece's plan."""
        return self.plans.artifact(variant, self.variants.built(variant).artifact, piece)

    def _scratch(self, variant: Variant, pieces: Sequence[Piece]) -> float:
        """The most bytes that a piece takes while it runs; 0 on runtimes without plans."""
        if self.runtime is not Runtime.TENSORRT_RTX:
            return 0
        try:
            return max(self.plan(variant, piece).activation_bytes for piece in pieces)
        except UnsupportedGraphError:
            return math.inf
