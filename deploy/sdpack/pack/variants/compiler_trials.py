"""Which layers of a variant the target's compiler rejects; they stay unquantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sdpack.domain.precision import Runtime
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.context import BuildContext
from sdpack.pack.parallel.tasks import CompileGraph
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.engine_plans import EnginePlans
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.pack.variants.unsupported_layers import Hints, refused_layers
from sdpack.pack.variants.variant_graphs import VariantGraphs
from sdpack.progress import counted
from sdpack.workers.jobs import WorkerJob

KIND = "refused layers"


@dataclass
class CompilerTrials:
    """Compiles variants to find the layers that the compiler rejects; results are in the ledger."""

    context: BuildContext
    sources: SourceGraphs
    variants: VariantGraphs
    plans: EnginePlans
    _hints: Hints = field(default_factory=Hints, init=False)

    def refused(self, variant: Variant) -> frozenset[str]:
        """Names of the layers to leave unquantized so that a variant compiles.

        Raises:
            UnsupportedGraphError: the variant does not compile even without these layers.
            EngineError: the compiler itself failed.
        """
        if self.context.runtime is not Runtime.TENSORRT_RTX:
            return frozenset()
        ledger, inputs = self.context.ledger, self._inputs(variant)
        known = ledger.find(KIND, inputs)
        if known is None:
            refused = self._find(variant)
            ledger.record(KIND, inputs, {"layers": sorted(refused)})
        else:
            refused = frozenset(known["layers"])
        if refused:
            self._hints.learn(self.sources.model(variant), variant.precision, refused)
        return refused

    def prepare(self, variants: Sequence[Variant]) -> None:
        """Compile the variants whose refused layers are not known yet, several in parallel.

        Failures are left to `refused`, as its guesses depend on the order of the variants.
        """
        if self.context.runtime is not Runtime.TENSORRT_RTX:
            return
        ledger = self.context.ledger
        new = [v for v in variants if ledger.find(KIND, self._inputs(v)) is None]
        self._compile_elsewhere([CompileGraph(variant) for variant in new])
        pairs = [(variant, self.variants.of(variant)) for variant in new]
        step = counted(self.context.say, f"building engines for {self.plans.sm}")
        self.plans.failures(pairs, lambda done: step(done, len(pairs)))

    def compile(self, variant: Variant, keep: frozenset[str]) -> UnsupportedGraphError | None:
        """Compile a variant's graph; returns why it does not compile, or None.

        Args:
            keep: names of layers to leave unquantized.
        """
        (failure,) = self.plans.failures([(variant, self.variants.of(variant, keep))])
        return failure

    def _compile_elsewhere(self, tasks: Sequence[CompileGraph]) -> None:
        """Have other machines compile graphs, if there are any; this process finds the results."""
        context = self.context
        if not context.on_cluster:
            return
        step = counted(context.say, f"building engines for {self.plans.sm}")
        names = [task.variant.full_name for task in tasks]
        jobs = [
            WorkerJob(f"compiling {name}", task.variant.part_name, task)
            for name, task in zip(names, tasks, strict=True)
        ]
        context.prepare(jobs, step)

    def _inputs(self, variant: Variant) -> dict[str, Any]:
        ranges = self.plans.whole(variant).ranges
        return {
            "graph": self.sources.of(variant).content,
            "shapes": {name: asdict(sizes) for name, sizes in ranges.items()},
            "spared": sorted(self.variants.uneven_inputs(variant)),
            **self.plans.target(variant),
        }

    def _find(self, variant: Variant) -> frozenset[str]:
        failure = self.compile(variant, frozenset())
        if failure is None:
            return frozenset()
        names = list(self.variants.schemes(variant, frozenset()))
        if not names:
            raise failure
        refused = self._hints.guess(self.sources.model(variant), variant.precision)
        if not refused or self.compile(variant, refused) is not None:
            self.context.say(f"finding the layers of {variant.full_name} that the compiler rejects")
            refused = frozenset(refused_layers(names, self._failing(variant, frozenset(names))))
            if self.compile(variant, refused) is not None:
                raise failure
        return refused

    def _failing(
        self, variant: Variant, names: frozenset[str]
    ) -> Callable[[Sequence[Sequence[str]]], list[bool]]:
        """A function that tells for groups of layers whether the graph fails with only that group.

        Args:
            names: all layers that can be quantized.
        """

        def failing(groups: Sequence[Sequence[str]]) -> list[bool]:
            kept = [names - set(group) for group in groups]
            self._compile_elsewhere([CompileGraph(variant, keep) for keep in kept])
            graphs = [self.variants.of(variant, keep) for keep in kept]
            failures = self.plans.failures([(variant, graph) for graph in graphs])
            return [failure is not None for failure in failures]

        return failing
