"""Which layers a compiler does not support in a precision, found by trial compilation.

TensorRT-RTX rejects some graphs because of a single quantized layer, and does not say which one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from sdpack.domain.precision import Precision
from sdpack.quantization.layers import layers

Layers = Sequence[str]


def refused_layers(
    layers: Layers, failing: Callable[[Sequence[Layers]], Sequence[bool]]
) -> list[str]:
    """The layers that prevent a graph from compiling, found by bisection.

    Layers that fail only together are all refused.

    Args:
        layers: layers with which, all in the precision, the graph does not compile.
        failing: tells for each group of layers whether the graph fails to compile with only that
            group in the precision; the groups of one call may be tried in parallel.
    """
    refused: list[str] = []
    groups = [list(layers)]
    while groups:
        refused += [group[0] for group in groups if len(group) == 1]
        halved = [_halves(group) for group in groups if len(group) > 1]
        fail = iter(failing([half for halves in halved for half in halves]) if halved else ())
        groups = []
        for halves in halved:
            failed = [half for half in halves if next(fail)]
            groups += failed
            if not failed:
                refused += [layer for half in halves for layer in half]
    return refused


def _halves(group: list[str]) -> tuple[list[str], list[str]]:
    return group[: len(group) // 2], group[len(group) // 2 :]


@dataclass
class Hints:
    """The layers refused in some graphs, as a first guess for other graphs of the same family.

    Node names differ between the sizes of a family. The input of a layer, and its place among the
    layers with the same input, do not.
    """

    _refused: set[tuple[Precision, str]] = field(default_factory=set)

    def learn(self, model: ir.Model, precision: Precision, refused: frozenset[str]) -> None:
        """Remember the layers that were refused in this graph."""
        self._refused |= {(precision, place) for name, place in _places(model) if name in refused}

    def guess(self, model: ir.Model, precision: Precision) -> frozenset[str]:
        """The layers of this graph that correspond to rejected layers of another graph."""
        return frozenset(
            name for name, place in _places(model) if (precision, place) in self._refused
        )


def _places(model: ir.Model) -> Iterator[tuple[str, str]]:
    """The name of each layer, and a description of its place that its whole family shares."""
    counts: Counter[str] = Counter()
    for layer in layers(model):
        source = layer.inputs[0].name if layer.inputs else ""
        operation = f"{layer.nodes[0].op_type} of {source}"
        counts[operation] += 1
        yield layer.name, f"{operation}, {counts[operation]}"
