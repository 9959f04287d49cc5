"""From a variant to the graph that ships, and to the form of it that this machine runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdpack.domain.placement import Role
from sdpack.domain.precision import UNQUANTIZED, Precision
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.built_variant import BuiltVariant
from sdpack.pack.variants.compiler_trials import CompilerTrials
from sdpack.pack.variants.graph_files import write_fused_attention, write_pieces
from sdpack.pack.variants.source_graphs import SourceGraphs
from sdpack.pack.variants.variant_graphs import VariantGraphs
from sdpack.quantization.half import widened
from sdpack.quantization.layers import layers
from sdpack.quantization.schemes import Scheme
from sdpack.quantization.variant import suited_schemes
from sdpack.rewrite.onnx_file import MODEL_FILE, read, write
from sdpack.store.artifacts import REVISION, Artifact


@dataclass
class VariantBuilder:
    """Builds each variant once, in a form that the target's compiler supports."""

    context: BuildContext
    sources: SourceGraphs
    graphs: VariantGraphs
    trials: CompilerTrials
    _built: dict[Variant, BuiltVariant] = field(default_factory=dict, init=False)

    def prepare(self, variants: Sequence[Variant]) -> None:
        """Compile these variants in parallel, which takes longest (`CompilerTrials.prepare`)."""
        self.trials.prepare(variants)

    def built(self, variant: Variant) -> BuiltVariant:
        """A variant as it ships.

        Raises:
            UnsupportedGraphError: the compiler rejects it in every form.
            EngineError: the compiler itself failed.
        """
        if variant not in self._built:
            refused = self.trials.refused(variant)
            graph = self.graphs.of(variant, refused)
            self._built[variant] = BuiltVariant(graph, refused, self.graphs.fp32_nodes(variant))
        return self._built[variant]

    def know(self, built: Iterable[tuple[Variant, BuiltVariant]]) -> None:
        """Take variants that another process built from the same request."""
        self._built.update(built)

    def runnable(self, variant: Variant) -> Artifact:
        """The graph that this machine runs for a variant.

        That is the variant's own, except for bf16: CPUs have no kernels for it, so its weights are
        stored in fp32, with the same values.
        """
        store, built = self.context.store, self.built(variant)
        if self.graphs.computed_in(variant) is not Precision.BF16:
            return built.artifact

        def build(folder: Path) -> None:
            model = read(built.path)
            widened(model)
            write(model, folder / MODEL_FILE)
            write_fused_attention(folder)
            if variant.role is Role.DECODER:
                write_pieces(folder)

        inputs = {"graph": built.artifact.content, "revision": REVISION}
        return store.make("widened", inputs, build)

    def is_in(self, mix: Mix, precision: Precision) -> bool:
        """Whether every part of a mix has the graph that it has in this precision.

        A part without layers to quantize has the same graph in several precisions.
        """
        return all(self._is_in(variant, precision) for variant in mix.variants)

    def _is_in(self, variant: Variant, precision: Precision) -> bool:
        if variant.precision is precision:
            return True
        if precision not in self.context.precisions or variant.precision is Precision.MIXED:
            return False
        try:
            other = self.built(replace(variant, precision=precision, schemes=(), bits=0.0))
        except UnsupportedGraphError:
            return False
        return other.artifact.content == self.built(variant).artifact.content

    def schemes(self, variant: Variant) -> dict[str, Scheme]:
        """The scheme of each layer that a variant as it ships quantizes."""
        return self.graphs.schemes(variant, self.built(variant).refused)

    def layer_counts(self, variant: Variant) -> dict[str, int]:
        """How many of a variant's layers are stored in each scheme; UNQUANTIZED for none."""
        path = self.sources.path(variant)
        every = layers(read(path))
        stored = suited_schemes(path, every, self.schemes(variant), self.context.abilities)
        names = (str(stored[x.name][1]) if x.name in stored else UNQUANTIZED for x in every)
        return dict(sorted(Counter(names).items()))
