"""Quantization of one ONNX file on its own, without a catalog, a profile or images.

It does what a build does to a part. The user's inputs take the place of the calibration prompts,
and the graph's outputs that of the images.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from sdpack.domain.precision import UNQUANTIZED, Precision, computed_in
from sdpack.errors import InputError, QuantizationError
from sdpack.pack.single_graph.bit_budget import BitBudget
from sdpack.pack.single_graph.output_check import WrittenGraph
from sdpack.pack.single_graph.recipe import Recipe
from sdpack.pack.single_graph.replacing import replacing
from sdpack.pack.single_graph.request import QuantizeRequest, QuantizeResult
from sdpack.pack.single_graph.source_outputs import SourceOutputs
from sdpack.progress import Say, counted
from sdpack.quantization.batches import Batches, batches_for
from sdpack.quantization.finite import check_weights
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.leftovers import Unquantized, leftovers, listed_words
from sdpack.quantization.opset import require_observable, require_opset
from sdpack.quantization.quantizable_graph import CalibrationInputs, Fp32Graph, QuantizableGraph
from sdpack.quantization.rounded_weights import rounder
from sdpack.quantization.rounding import Rounded
from sdpack.quantization.schemes import ABILITIES, MIXABLE, Abilities, Scheme, suited
from sdpack.quantization.variant import (
    LayerQuantization,
    make_variant,
    scale_type,
    suited_schemes,
)
from sdpack.rewrite.onnx_file import files_of, read, write
from sdpack.store.artifacts import Store, digest, file_sha256

Forms = Mapping[str, tuple[Layer, Scheme]]
"""The quantized layers by name, each with its scheme in the form that it supports."""


def quantize(request: QuantizeRequest, store: Store, say: Say = lambda _: None) -> QuantizeResult:
    """Quantize a graph. The output is written completely, or not at all.

    Calibration, rounding errors and gains are kept in the store: the next recipe for the same
    graph, or the same one after an interruption, starts from them.

    Raises:
        InputError: the recipe, the runtime, a pattern or the calibration inputs are wrong.
        InfeasibleError: the layers need more bits than the recipe allows.
        GraphError: the graph is missing, damaged or not valid.
        QuantizationError: the graph is quantized already, has too old an opset, or has nothing to
            quantize; or an output of the result is constant or not finite.
        EngineError: the graph does not run.
        StoreError: the output cannot be written.
    """
    request.check()
    return _Quantization(request, store, say).run()


@dataclass
class _Quantization:
    request: QuantizeRequest
    store: Store
    say: Say
    _not_loaded: str = field(default="", init=False)

    def run(self) -> QuantizeResult:
        request, path = self.request, self.request.path
        bytes_before = _bytes(path)
        self.say(f"reading {path}")
        check_weights(path, self.model)
        self._check_layers()
        self._check_opset()
        if self.source is not None:
            _ = self.source.values  # done first, as it takes the most memory
        schemes = self._schemes()
        forms = suited_schemes(path, self.layers, schemes, self.abilities)
        self.say(f"making {request.recipe}")
        with replacing(request.out) as target:
            write(self._quantized(schemes), target)
            errors = self._errors(target)
            bytes_after = _bytes(target)
        unquantized = self._unquantized(forms)
        return QuantizeResult(
            request.out,
            bytes_before,
            bytes_after,
            self._counts(forms, unquantized),
            tuple(sorted(self.fp32_nodes)),
            errors,
            tuple(unquantized),
            self._not_loaded,
        )

    def _check_layers(self) -> None:
        if self.layers or self.recipe.changes_arithmetic_alone:
            return
        raise QuantizationError(
            f"{self.request.path} has nothing to quantize: no MatMul, Gemm, Conv or Gather has its "
            "own fp32 weight of 1,024 numbers or more"
            + listed_words("; its weights are ", leftovers(self.model, self.layers))
        )

    def _check_opset(self) -> None:
        """Check that the graph's opset is new enough, before any long computation."""
        recipe = self.recipe
        schemes = set(MIXABLE) if recipe.precision is Precision.MIXED else set()
        if recipe.scheme is not None:
            forms = {suited(layer, recipe.scheme, self.abilities) for layer in self.layers}
            schemes = {form for form in forms if form is not None}
        require_opset(self.model, schemes)
        if self.batches is not None:
            require_observable(self.model)

    @cached_property
    def model(self) -> ir.Model:
        return read(self.request.path)

    @cached_property
    def layers(self) -> list[Layer]:
        return layers(self.model)

    @property
    def recipe(self) -> Recipe:
        return self.request.recipe

    @property
    def abilities(self) -> Abilities:
        return ABILITIES[self.request.runtime]

    @property
    def arithmetic(self) -> Precision:
        return computed_in(self.request.runtime, self.recipe.precision)

    @cached_property
    def batches(self) -> Batches | None:
        calibration = self.request.calibration
        return batches_for(self.model, calibration) if calibration else None

    @cached_property
    def graph(self) -> QuantizableGraph:
        path, batches, calibration = self.request.path, self.batches, None
        if batches is not None:
            hashes = [file_sha256(file) for file in batches.files]
            calibration = CalibrationInputs(
                lambda: {"batches": hashes}, lambda: batches, lambda: batches
            )
        graph = Fp32Graph(path, _content(path), path.name, path)
        return QuantizableGraph(graph, calibration, self.store, self.say)

    @cached_property
    def source(self) -> SourceOutputs | None:
        if self.batches is None:
            return None
        return SourceOutputs(self.graph, self.batches, self.store, self.say)

    @cached_property
    def fp32_nodes(self) -> frozenset[str]:
        return self.graph.fp32_nodes(self.arithmetic)

    @cached_property
    def keep(self) -> frozenset[str]:
        """Names of the layers that the user wants left as they are."""
        names = [layer.name for layer in self.layers]
        keep: set[str] = set()
        for pattern in self.request.keep:
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                raise InputError(
                    f"no layer matches {pattern!r}; there are {', '.join(names[:3])} and "
                    f"{max(0, len(names) - 3)} more"
                )
            keep |= matching
        return frozenset(keep)

    def _schemes(self) -> dict[str, Scheme]:
        recipe = self.recipe
        if recipe.precision is not Precision.MIXED:
            return self.graph.uniform_schemes(recipe.scheme, self.keep)
        budget = BitBudget(self.graph, recipe, self.arithmetic, self.abilities, self.keep)
        return budget.schemes()

    def _quantized(self, schemes: Mapping[str, Scheme]) -> ir.Model:
        observed = self.graph.observed
        ranges = {} if observed is None else observed.ranges
        quantization = LayerQuantization(schemes, self._rounding(schemes), ranges)
        return make_variant(
            self.request.path, quantization, self.arithmetic, self.abilities, self.fp32_nodes
        )

    def _rounding(self, schemes: Mapping[str, Scheme]) -> Callable[[Layer, Scheme], Rounded]:
        """A function that rounds each layer when it is written, and reports progress."""
        step = counted(self.say, "rounding layers")
        started: set[str] = set()

        def report(name: str) -> None:
            started.add(name)
            step(len(started) - 1, len(schemes))

        return rounder(self.graph.observed, scale_type(self.arithmetic), report)

    def _errors(self, target: Path) -> dict[str, float]:
        """The errors of the outputs; without calibration inputs, the graph is only loaded."""
        request = self.request
        written = WrittenGraph(
            target, request.path, str(request.recipe), self.arithmetic, request.runtime
        )
        if self.source is None:
            self.say("loading the new graph")
            self._not_loaded = written.check_runs()
            return {}
        self.say("comparing outputs")
        return written.errors(self.source.values, self.source.batches)

    def _unquantized(self, forms: Forms) -> list[Unquantized]:
        """The weights that are not quantized or, if only the arithmetic changes, stay in fp32."""
        if self.recipe.changes_arithmetic_alone:
            weights = [
                _leftover(layer, f"{layer.name} computes in fp32, as fp16 overflows")
                for layer in self.layers
                if self.fp32_nodes.issuperset(str(node.name) for node in layer.nodes)
            ]
        else:
            weights = leftovers(self.model, self.layers)
            rest = [layer for layer in self.layers if layer.name not in forms]
            weights += [_leftover(layer, self._why_kept(layer)) for layer in rest]
        return sorted(weights, key=lambda weight: (-weight.numbers, weight.name))

    def _why_kept(self, layer: Layer) -> str:
        if layer.name in self.keep:
            return f"{layer.name}, as --keep asks"
        if layer.feeds_attention and not self.abilities.packed_attention:
            return f"{layer.name} feeds attention"
        return f"{layer.name} affects the outputs most"

    def _counts(self, forms: Forms, unquantized: list[Unquantized]) -> dict[str, int]:
        """The number of weights in each scheme."""
        counts = Counter(str(form) for _, form in forms.values())
        if self.recipe.changes_arithmetic_alone:
            counts[str(self.arithmetic)] = len(self.layers) - len(unquantized)
        counts[UNQUANTIZED] = len(unquantized)
        return {name: count for name, count in sorted(counts.items()) if count}


def _leftover(layer: Layer, why: str) -> Unquantized:
    return Unquantized(str(layer.weight.name), layer.size, why)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in files_of(path))


def _content(path: Path) -> str:
    """One hash of a graph's files, independent of their folder."""
    return digest({os.path.relpath(p, path.parent): file_sha256(p) for p in files_of(path)})
