"""The collaborators of a build, wired together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sdpack.engines.onnxruntime import keep_memory
from sdpack.pack.candidates import Candidates
from sdpack.pack.context import BuildContext
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.calibration import Calibration
from sdpack.pack.variants.calibration_inputs import PartInputs
from sdpack.pack.variants.calibration_mixes import CalibrationMixes
from sdpack.pack.variants.calibration_recordings import CalibrationRecordings
from sdpack.pack.variants.compiler_trials import CompilerTrials
from sdpack.pack.variants.engine_plans import EnginePlans
from sdpack.pack.variants.rounded_weight_cache import RoundedWeightCache
from sdpack.pack.variants.sampler_tables import SamplerTables
from sdpack.pack.variants.shapes import InputShapes
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.pack.variants.tokenizers import Tokenizers
from sdpack.pack.variants.variant_builder import VariantBuilder
from sdpack.pack.variants.variant_graphs import VariantGraphs
from sdpack.pack.variants.variant_pieces import VariantPieces
from sdpack.progress import Say
from sdpack.store.artifacts import cache_folder
from sdpack.store.ledger import Ledger
from sdpack.store.opening import open_store
from sdpack.workers.executor import Executor, OneProcess


@dataclass(frozen=True)
class Toolchain:
    """The collaborators of one build; each step takes only those it needs.

    Attributes:
        sources: the fp32 graphs.
        graphs: the graphs of variants.
        variants: the graphs of variants, in forms that the target supports.
        pieces: the forms in which variants are loaded, and their plans.
    """

    context: BuildContext
    candidates: Candidates
    tokenizers: Tokenizers
    samplers: SamplerTables
    sources: SourceGraphs
    calibration: Calibration
    graphs: VariantGraphs
    variants: VariantBuilder
    pieces: VariantPieces

    @property
    def request(self) -> BuildRequest:
        """The request of the build."""
        return self.context.request

    @classmethod
    def of(cls, context: BuildContext, candidates: Candidates | None = None) -> Toolchain:
        """The toolchain of a context.

        Args:
            candidates: the candidates of its request, if they exist already.
        """
        candidates = candidates or Candidates(context.request)
        request, store, say = context.request, context.store, context.say
        tokenizers = Tokenizers(candidates, store)
        samplers = SamplerTables(candidates, store)
        sources = SourceGraphs(candidates, tokenizers, store, say)
        mixes = CalibrationMixes(candidates, tokenizers, sources, samplers)
        inputs = PartInputs(mixes, CalibrationRecordings(mixes, store))
        calibration = Calibration(request, store, say, sources, inputs)
        shapes = InputShapes(candidates, tokenizers.length, tokenizers.kept_length)
        plans = EnginePlans(context, sources, shapes)
        weight_cache = RoundedWeightCache(context, calibration)
        graphs = VariantGraphs(context, calibration, weight_cache)
        trials = CompilerTrials(context, sources, graphs, plans)
        variants = VariantBuilder(context, sources, graphs, trials)
        return cls(
            context,
            candidates,
            tokenizers,
            samplers,
            sources,
            calibration,
            graphs,
            variants,
            VariantPieces(variants, plans, context.runtime),
        )


@contextmanager
def open_toolchain(
    candidates: Candidates, say: Say = lambda _: None, executor: Executor | None = None
) -> Iterator[Toolchain]:
    """The toolchain of a request, with the store and the ledger of this user.

    Args:
        executor: does independent jobs ahead; None for no other processes.
    """
    keep_memory()  # parts run repeatedly, and return their memory in between
    ledger = Ledger(cache_folder() / "ledger.sqlite")
    try:
        context = BuildContext(
            candidates.request, open_store(), ledger, say, executor or OneProcess()
        )
        yield Toolchain.of(context, candidates)
    finally:
        ledger.close()
