"""The part of a build that runs in a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sdpack.engines.onnxruntime import keep_memory
from sdpack.pack.context import BuildContext
from sdpack.pack.mixed.choices import Choices
from sdpack.pack.parallel.collected_ledger import CollectedLedger
from sdpack.pack.parallel.tasks import (
    Calibrate,
    CompileGraph,
    CompilePieces,
    DrawCalibration,
    DrawMixes,
    ExportPart,
    MakeGraphs,
    MeasureEffects,
    MeasureGains,
    RoundWeights,
    Task,
)
from sdpack.pack.request import BuildRequest
from sdpack.pack.selection.mix_evaluator import MixEvaluator
from sdpack.pack.toolchain import Toolchain
from sdpack.progress import Say
from sdpack.quantization.schemes import UNIFORM
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Measurement
from sdpack.store.opening import open_store
from sdpack.workers.jobs import Handle


@dataclass(frozen=True)
class OpenBuild:
    """Opens a request's toolchain in a worker process of this machine.

    Attributes:
        ledger: file of the ledger, which only the calling process writes.
    """

    request: BuildRequest
    ledger: Path

    def __call__(self) -> Handle:
        """The worker's function for tasks; it returns rows for the ledger."""
        keep_memory()
        return BuildWorker(self.request, open_store(), CollectedLedger(self.ledger)).do


class BuildWorker:
    """Does tasks of a build with a toolchain of its own."""

    def __init__(self, request: BuildRequest, store: Store, ledger: CollectedLedger) -> None:
        self._ledger = ledger
        self._say: Say = lambda _: None
        context = BuildContext(request, store, ledger, lambda line: self._say(line))
        self._toolchain = Toolchain.of(context)

    def do(self, task: Task, say: Say) -> list[Measurement]:
        """Do a task, and return the rows it measured."""
        self._say = say
        toolchain = self._toolchain
        if not isinstance(task, DrawCalibration):
            recordings = toolchain.calibration.recordings
            recordings.close()
        match task:
            case ExportPart(variant):
                toolchain.sources.of(variant)
            case DrawCalibration(variant, place):
                recordings = toolchain.calibration.recordings
                recordings.make(variant, place)
            case Calibrate(variant):
                toolchain.calibration.content(variant)
            case MeasureGains(variant, share):
                toolchain.calibration.of(variant).measure_share(share)
            case RoundWeights(variant):
                toolchain.graphs.rounded_weights(variant, UNIFORM[variant.precision])
            case MakeGraphs(variants):
                for variant in variants:
                    toolchain.graphs.of(variant)
            case CompileGraph(variant, keep):
                toolchain.variants.trials.compile(variant, keep)
            case CompilePieces(variant, placement, built_variant):
                toolchain.variants.know([(variant, built_variant)])
                toolchain.pieces.compile(variant, placement)
            case MeasureEffects(variant):
                Choices.of_toolchain(toolchain).of(variant)
            case DrawMixes(mixes, numbers, built, in_fp32):
                toolchain.variants.know(built)
                evaluator = self._evaluator
                spec = evaluator.reference if in_fp32 else evaluator.spec
                specs = [spec(mix) for mix in mixes]
                evaluator.runner.scores(specs, numbers)
        return self._ledger.collect()

    @cached_property
    def _evaluator(self) -> MixEvaluator:
        return MixEvaluator(self._toolchain, (), ())
