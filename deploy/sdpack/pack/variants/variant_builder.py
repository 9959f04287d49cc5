"""From fp32 graphs to engines: each step an artifact, made once.

    graph -> (what flows through it) -> variant -> plan

A layer that the target's compiler refuses in a precision is kept in the type the variant computes
in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx_ir as ir

from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision, Runtime, computed_in
from sdpack.engines import onnxruntime, tensorrt_builder
from sdpack.engines.tensorrt_builder import Plan
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.variants.calibration import Calibration
from sdpack.pack.variants.engine_plans import EnginePlans
from sdpack.pack.variants.rounded_weight_cache import RoundedWeightCache
from sdpack.pack.variants.shapes import Piece
from sdpack.pack.variants.source_graphs import (
    REVISION,
    SLICED_FILE,
    SLICES,
    SourceGraphs,
    split_of,
    versions,
    words,
    write_fused_attention,
    write_pieces,
    write_sliced,
)
from sdpack.pack.variants.unsupported_layers import Hints, refused_layers
from sdpack.progress import counted
from sdpack.quantization.half import beyond_half, widened
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.observe import Observed
from sdpack.quantization.rounded_weights import RoundedWeights, rounder
from sdpack.quantization.rounding import Rounded
from sdpack.quantization.schemes import ABILITIES, UNIFORM, Abilities, Scheme
from sdpack.quantization.sensitivity import uneven
from sdpack.quantization.variant import (
    make_variant,
    scale_type,
    suited_schemes,
    uniform_schemes,
)
from sdpack.rewrite.fuse import fuse_attention
from sdpack.rewrite.onnx_file import MODEL_FILE, read, write
from sdpack.store.artifacts import Artifact

SLICED_SHARE = 0.75  # of the scratch of a graph: slices that take less are worth their time
PIECES = 1  # of the ways a decoder is cut
KEPT = "kept"  # a layer in the type its variant computes in
QUANTIZERS = ("onnx-ir", "onnxruntime", "numpy", "torch")


@dataclass(frozen=True)
class Made:
    """A variant as it ships.

    Attributes:
        refused: layers the target's compiler would not take in the precision.
        fp32_nodes: nodes that compute in fp32 as fp16 may not hold their numbers.
    """

    artifact: Artifact
    refused: frozenset[str]
    fp32_nodes: frozenset[str]

    @property
    def path(self) -> Path:
        return self.artifact.path(MODEL_FILE)


@dataclass
class VariantBuilder(SourceGraphs):
    """Makes what one build needs."""

    _made: dict[Variant, Made] = field(default_factory=dict, init=False)
    _hints: Hints = field(default_factory=Hints, init=False)
    _models: dict[str, ir.Model] = field(default_factory=dict, init=False)

    @cached_property
    def calibration(self) -> Calibration:
        """What is seen of graphs on real inputs."""
        return Calibration(self)

    def observed(self, variant: Variant) -> Observed:
        """What flows through a variant's graph on real inputs."""
        return self.calibration.observed(variant)

    def made(self, variant: Variant) -> Made:
        """The variant's graph, in the form the target's compiler takes.

        Raises:
            UnsupportedGraphError: the compiler takes it in no form, or fp16 cannot hold its
            numbers.
            EngineError: the compiler could not work.
        """
        if variant not in self._made:
            self._made[variant] = self._make(variant)
        return self._made[variant]

    def is_in(self, mix: Mix, precision: Precision) -> bool:
        """Whether every part of a mix is what this precision makes of it.

        One with nothing to quantize may be called by another precision that makes the same of it.
        """

        def is_so(variant: Variant) -> bool:
            if variant.precision is precision:
                return True
            if precision not in self.request.precisions or variant.precision is Precision.MIXED:
                return False
            try:
                made = self.made(replace(variant, precision=precision, schemes=(), bits=0.0))
            except UnsupportedGraphError:
                return False
            return made.artifact.content == self.made(variant).artifact.content

        return all(is_so(variant) for variant in mix.variants)

    def drawable(self, variant: Variant) -> Artifact:
        """What this machine draws with in a variant's place: the variant, unless that is bf16.

        No CPU kernel takes bf16; its weights are then the same in fp32.
        """
        made = self.made(variant)
        if self._computed_in(variant) is not Precision.BF16:
            return made.artifact

        def build(folder: Path) -> None:
            model = read(made.path)
            widened(model)
            write(model, folder / MODEL_FILE)
            write_fused_attention(folder)
            if variant.role is Role.DECODER:
                write_pieces(folder)

        inputs = {"graph": made.artifact.content, "revision": REVISION}
        return self.store.make("widened", inputs, build)

    @property
    def _for_onnxruntime(self) -> bool:
        return self.profile.runtime in onnxruntime.PROVIDERS

    def prepare(self, variants: Sequence[Variant]) -> None:
        """Build the plans of these variants, as many at once as there are cores.

        Only what any order of building gives is built here; `made` does the rest.
        """
        if self.profile.runtime is not Runtime.TENSORRT_RTX:
            return
        new = [v for v in variants if self.ledger.find("refused layers", self._trial(v)) is None]
        whole = [self._variant(variant, frozenset()) for variant in new]
        step = counted(self.say, f"building engines for {self.profile.sm}")
        pairs = list(zip(new, whole, strict=True))
        self._plans.failures(pairs, lambda done: step(done, len(pairs)))

    def _make(self, variant: Variant) -> Made:
        fp32_nodes = self._fp32_nodes(variant)
        if self.profile.runtime is not Runtime.TENSORRT_RTX:
            return Made(self._variant(variant, frozenset()), frozenset(), fp32_nodes)
        inputs = self._trial(variant)
        known = self.ledger.find("refused layers", inputs)
        if known is None:
            refused = self._find_refused(variant)
            self.ledger.record("refused layers", inputs, {"layers": sorted(refused)})
        else:
            refused = frozenset(known["layers"])
        if refused:
            self._hints.learn(self.model(variant), variant.precision, refused)
        return Made(self._variant(variant, refused), refused, fp32_nodes)

    def _fp32_nodes(self, variant: Variant) -> frozenset[str]:
        """A CPU computes fp16 graphs in fp32 and would not show what overflows on the device."""
        if self._computed_in(variant) is not Precision.FP16:
            return frozenset()
        return beyond_half(self.model(variant), self.observed(variant).peaks)

    def _computed_in(self, variant: Variant) -> Precision:
        return computed_in(self.profile.runtime, variant.precision)

    def _trial(self, variant: Variant) -> dict[str, Any]:
        ranges = self.shapes.ranges(variant, Placement())
        shapes = {name: asdict(given) for name, given in ranges.items()}
        return {
            "graph": self.graph(variant).content,
            "shapes": shapes,
            "spared": sorted(self._spared(variant)),
            **self._plans.target(variant),
        }

    def _find_refused(self, variant: Variant) -> frozenset[str]:
        """The layers to leave out of the precision so that the variant builds."""
        failure = self._failure(variant, frozenset())
        if failure is None:
            return frozenset()
        names = list(self.schemes(variant, frozenset()))
        if not names:
            raise failure
        refused = self._hints.guess(self.model(variant), variant.precision)
        if not refused or self._failure(variant, refused) is not None:
            self.say(f"finding the layers of {words(variant)} that the compiler rejects")
            everything = frozenset(names)

            def failing(groups: Sequence[Sequence[str]]) -> list[bool]:
                return self._fail(variant, [everything - set(group) for group in groups])

            refused = frozenset(refused_layers(names, failing))
            if self._failure(variant, refused) is not None:
                raise failure
        return refused

    def model(self, variant: Variant) -> ir.Model:
        """The fp32 graph of a variant's candidate, read again each time."""
        return read(self.graph(variant).path(MODEL_FILE))

    def _fail(self, variant: Variant, kept: Sequence[frozenset[str]]) -> list[bool]:
        """For each set of layers kept out of the precision, whether the variant fails to build."""
        made = [self._variant(variant, keep) for keep in kept]
        failures = self._plans.failures([(variant, graph) for graph in made])
        return [failure is not None for failure in failures]

    def _failure(self, variant: Variant, keep: frozenset[str]) -> UnsupportedGraphError | None:
        return self._plans.failure(variant, self._variant(variant, keep))

    def _variant(self, variant: Variant, keep: frozenset[str]) -> Artifact:
        source = self.graph(variant)
        path, arithmetic = source.path(MODEL_FILE), self._computed_in(variant)
        schemes = self.schemes(variant, keep)
        fp32_nodes = self._fp32_nodes(variant)
        ranges = self.observed(variant).ranges if schemes else {}
        rounded_inputs = {n: ranges[n] for n, s in schemes.items() if s.inputs and n in ranges}
        inputs = {
            **self._weight_cache.inputs(variant, rounded=bool(schemes)),
            "schemes": {name: str(scheme) for name, scheme in schemes.items()},
            "ranges": rounded_inputs,
            "computed_in": arithmetic,
            "fp32_nodes": sorted(fp32_nodes),
            "fused": self._for_onnxruntime,
            "tools": versions(QUANTIZERS),
            "revision": REVISION,
        }

        sliced = arithmetic is Precision.FP32 and not self._for_onnxruntime

        def build(folder: Path) -> None:
            rounded = self._rounding(variant, schemes)
            self.say(f"making {words(variant)}")
            made = make_variant(
                path, schemes, arithmetic, self.abilities, rounded, rounded_inputs, fp32_nodes
            )
            if self._for_onnxruntime:
                fuse_attention(made)
            write(made, folder / MODEL_FILE)
            if not self._for_onnxruntime:
                write_fused_attention(folder)
            if sliced:
                write_sliced(folder)
            if variant.role is Role.DECODER:
                write_pieces(folder)

        if sliced:
            inputs["slices"] = SLICES
        if variant.role is Role.DECODER:
            inputs["pieces"] = PIECES
        return self.store.make("variant", inputs, build)

    def _rounding(
        self, variant: Variant, schemes: Mapping[str, Scheme]
    ) -> Callable[[Layer, Scheme], Rounded]:
        """What rounds a variant's layers: those of uniform schemes are rounded once for all."""
        shared = set(schemes.values()) & set(UNIFORM.values())
        by_scheme = {scheme: self.rounded_weights(variant, scheme) for scheme in shared}
        scales = scale_type(self._computed_in(variant))
        on_its_own = rounder(self.observed(variant), scales) if schemes else None

        def rounded(layer: Layer, had: Scheme) -> Rounded:
            shared_weights = by_scheme.get(schemes[layer.name])
            if shared_weights is not None:
                return shared_weights.rounded(layer.name)
            assert on_its_own is not None
            return on_its_own(layer, had)

        return rounded

    def rounded_weights(self, variant: Variant, scheme: Scheme) -> RoundedWeights:
        """A variant's layers, each rounded in this scheme (`RoundedWeightCache.of`)."""
        return self._weight_cache.of(variant, scheme)

    @cached_property
    def _weight_cache(self) -> RoundedWeightCache:
        return RoundedWeightCache(self, self.calibration)

    def schemes(self, variant: Variant, keep: frozenset[str]) -> dict[str, Scheme]:
        """How a variant's layers should be stored, those to keep left out."""
        if variant.precision is Precision.MIXED:
            return {name: scheme for name, scheme in variant.schemes if name not in keep}
        scheme = UNIFORM.get(variant.precision)
        return uniform_schemes(layers(self.model(variant)), scheme, self._spared(variant), keep)

    def _spared(self, variant: Variant) -> frozenset[str]:
        """Layers that keep their inputs in an int8 variant; in others none."""
        if variant.precision is not Precision.INT8:
            return frozenset()
        return uneven(self.observed(variant).noise, self.calibration.gains(variant))

    def stored(self, variant: Variant) -> dict[str, int]:
        """How many of a variant's layers are stored in each scheme, those in none as KEPT."""
        path = self.graph(variant).path(MODEL_FILE)
        found = layers(read(path))
        asked = self.schemes(variant, self.made(variant).refused)
        chosen = suited_schemes(path, found, asked, self.abilities)
        words = (str(chosen[x.name][1]) if x.name in chosen else KEPT for x in found)
        return dict(sorted(Counter(words).items()))

    @property
    def abilities(self) -> Abilities:
        """What the target keeps small while it runs."""
        return ABILITIES[self.profile.runtime]

    def pieces(self, variant: Variant, placement: Placement) -> tuple[Piece, ...]:
        """The graphs a variant is loaded as under a placement.

        Raises:
            UnsupportedGraphError: it cannot be had so.
        """
        made = self.made(variant).artifact
        if SLICED_FILE not in made.files:
            return self.shapes.pieces(variant, placement, split_of(made))
        whole, sliced = (
            self.shapes.pieces(variant, placement, split_of(made), file)
            for file in (MODEL_FILE, SLICED_FILE)
        )
        most = SLICED_SHARE * self._scratch(variant, whole)
        return sliced if self._scratch(variant, sliced) < most else whole

    def _scratch(self, variant: Variant, pieces: Sequence[Piece]) -> float:
        """The most that any takes while it runs; known only of plans, and 0 of others."""
        if self.profile.runtime is not Runtime.TENSORRT_RTX:
            return 0
        try:
            return max(self.plan(variant, piece).activation_bytes for piece in pieces)
        except UnsupportedGraphError:
            return math.inf

    def plan(self, variant: Variant, piece: Piece) -> Plan:
        """The TensorRT plan of a piece of a variant."""
        return tensorrt_builder.read_plan(self.plan_artifact(variant, piece).folder)

    def plan_artifact(self, variant: Variant, piece: Piece) -> Artifact:
        """Where that plan is kept.

        Raises:
            UnsupportedGraphError: the compiler does not take the graph; asked once.
        """
        return self._plans.artifact(variant, self.made(variant).artifact, piece)

    @cached_property
    def _plans(self) -> EnginePlans:
        return EnginePlans(self)
