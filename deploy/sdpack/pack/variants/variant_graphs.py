"""The ONNX graph of a variant: its candidate's fp32 graph, quantized for the target runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision, computed_in
from sdpack.engines import onnxruntime
from sdpack.pack.context import BuildContext
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.calibration import Calibration
from sdpack.pack.variants.graph_files import (
    SLICES,
    write_fused_attention,
    write_pieces,
    write_sliced,
)
from sdpack.pack.variants.rounded_weight_cache import RoundedWeightCache
from sdpack.progress import counted
from sdpack.quantization.layers import Layer
from sdpack.quantization.quantizable_graph import QUANTIZERS
from sdpack.quantization.rounded_weights import RoundedWeights, fill
from sdpack.quantization.rounding import Rounded
from sdpack.quantization.schemes import UNIFORM, Scheme
from sdpack.quantization.variant import (
    LayerQuantization,
    make_variant,
    scale_type,
    suited_schemes,
)
from sdpack.rewrite.fuse import fuse_attention
from sdpack.rewrite.onnx_file import MODEL_FILE, write
from sdpack.store.artifacts import REVISION, Artifact
from sdpack.version import versions

PIECES_REVISION = 1  # of how decoders are split


@dataclass
class VariantGraphs:
    """Writes the graphs of variants."""

    context: BuildContext
    calibration: Calibration
    weight_cache: RoundedWeightCache

    def of(self, variant: Variant, keep: Set[str] = frozenset()) -> Artifact:
        """The graph of a variant.

        Args:
            keep: names of layers to leave in the type the graph computes in.
        """
        context, schemes = self.context, self.schemes(variant, keep)
        fp32_nodes = self.fp32_nodes(variant)
        ranges = self._ranges(variant, schemes)
        inputs = self._inputs(variant, schemes, fp32_nodes, ranges)

        def build(folder: Path) -> None:
            with context.store.scratch() as scratch:
                rounded = self._rounding(variant, schemes, scratch)
                context.say(f"making {variant.full_name}")
                model = make_variant(
                    self.calibration.of(variant).path,
                    LayerQuantization(schemes, rounded, ranges),
                    self.computed_in(variant),
                    context.abilities,
                    fp32_nodes,
                )
                if self._for_onnxruntime:
                    fuse_attention(model)
                write(model, folder / MODEL_FILE)
            self._write_other_forms(variant, folder)

        return context.store.make("variant", inputs, build)

    def schemes(self, variant: Variant, keep: Set[str]) -> dict[str, Scheme]:
        """The scheme of each layer of a variant, without the layers to keep."""
        if variant.precision is Precision.MIXED:
            return {name: scheme for name, scheme in variant.schemes if name not in keep}
        scheme = UNIFORM.get(variant.precision)
        return self.calibration.of(variant).uniform_schemes(scheme, keep)

    def uneven_inputs(self, variant: Variant) -> frozenset[str]:
        """Layers of an int8 variant whose inputs are not rounded; none of other variants."""
        return self.calibration.of(variant).uneven_inputs(UNIFORM.get(variant.precision))

    def fp32_nodes(self, variant: Variant) -> frozenset[str]:
        """Nodes that compute in fp32 because fp16 overflows there.

        They are found by calibration: a CPU computes fp16 graphs in fp32 and would not overflow.
        """
        if self.computed_in(variant) is not Precision.FP16:
            return frozenset()
        return self.calibration.of(variant).fp32_nodes(Precision.FP16)

    def computed_in(self, variant: Variant) -> Precision:
        """The type of a variant's arithmetic on the target runtime."""
        return computed_in(self.context.runtime, variant.precision)

    def rounded_weights(self, variant: Variant, scheme: Scheme) -> RoundedWeights:
        """A variant's layers, each rounded in this scheme (`RoundedWeightCache.of`)."""
        return self.weight_cache.of(variant, scheme)

    @property
    def _for_onnxruntime(self) -> bool:
        return self.context.runtime in onnxruntime.PROVIDERS

    def _is_sliced(self, variant: Variant) -> bool:
        return self.computed_in(variant) is Precision.FP32 and not self._for_onnxruntime

    def _ranges(self, variant: Variant, schemes: Mapping[str, Scheme]) -> dict[str, float]:
        """Clipping thresholds of the inputs that are rounded, by layer."""
        rounded = [name for name, scheme in schemes.items() if scheme.inputs]
        if not rounded:
            return {}
        ranges = self.calibration.observed(variant).ranges
        return {name: ranges[name] for name in rounded if name in ranges}

    def _inputs(
        self,
        variant: Variant,
        schemes: Mapping[str, Scheme],
        fp32_nodes: Set[str],
        ranges: Mapping[str, float],
    ) -> dict[str, Any]:
        """Everything that determines a variant's graph."""
        inputs = {
            **self.weight_cache.inputs(variant, rounded=bool(schemes)),
            "schemes": {name: str(scheme) for name, scheme in schemes.items()},
            "ranges": ranges,
            "computed_in": self.computed_in(variant),
            "fp32_nodes": sorted(fp32_nodes),
            "fused": self._for_onnxruntime,
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }
        if self._is_sliced(variant):
            inputs["slices"] = SLICES
        if variant.role is Role.DECODER:
            inputs["pieces"] = PIECES_REVISION
        return inputs

    def _write_other_forms(self, variant: Variant, folder: Path) -> None:
        if not self._for_onnxruntime:
            write_fused_attention(folder)
        if self._is_sliced(variant):
            write_sliced(folder)
        if variant.role is Role.DECODER:
            write_pieces(folder)

    def _rounding(
        self, variant: Variant, schemes: Mapping[str, Scheme], scratch: Path
    ) -> Callable[[Layer, Scheme], Rounded]:
        """A function that gives rounded layers; all variants share the weights in uniform schemes.

        Args:
            scratch: an empty folder, for layers in other schemes.
        """
        shared = set(schemes.values()) & set(UNIFORM.values())
        by_scheme = {scheme: self.rounded_weights(variant, scheme) for scheme in shared}
        others = {name: scheme for name, scheme in schemes.items() if scheme not in shared}
        own = self._rounded_for_one(variant, others, scratch) if others else None

        def rounded(layer: Layer, form: Scheme) -> Rounded:
            weights = by_scheme.get(schemes[layer.name], own)
            assert weights is not None
            return weights.rounded(layer.name)

        return rounded

    def _rounded_for_one(
        self, variant: Variant, schemes: Mapping[str, Scheme], folder: Path
    ) -> RoundedWeights:
        """Layers in schemes that no other variant has, rounded on all threads into a folder."""
        context, graph = self.context, self.calibration.of(variant)
        step = counted(context.say, f"rounding {len(schemes)} layers of {variant.full_name}")
        chosen = suited_schemes(graph.path, graph.layers(), schemes, context.abilities).values()
        scales = scale_type(self.computed_in(variant))
        fill({folder: chosen}, self.calibration.observed(variant), scales, step)
        return RoundedWeights((folder,))
