"""Which layers a compiler does not support in a precision, found by trying.

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
    """The layers that keep a graph from building, found by halving.

    Args:
        layers: with all of them in the precision, the graph does not build.
        failing: for each of some groups of layers, whether the graph fails to build with only
            these in the precision; the groups of one call may be tried side by side.

    Layers that fail only together are all refused.
    """
    refused: list[str] = []
    groups = [list(layers)]
    while groups:
        refused += [group[0] for group in groups if len(group) == 1]
        halved = [_halves(group) for group in groups if len(group) > 1]
        fail = iter(failing([half for halves in halved for half in halves]) if halved else ())
        groups = []
        for halves in halved:
            found = [half for half in halves if next(fail)]
            groups += found
            if not found:
                refused += [layer for half in halves for layer in half]
    return refused


def _halves(group: list[str]) -> tuple[list[str], list[str]]:
    return group[: len(group) // 2], group[len(group) // 2 :]


@dataclass
class Hints:
    """What was refused in one graph, as a first guess for others of its family.

    Node names differ between sizes of one family. What a layer reads, and where it stands among
    those that read the same, does not.
    """

    _refused: set[tuple[Precision, str]] = field(default_factory=set)

    def learn(self, model: ir.Model, precision: Precision, refused: frozenset[str]) -> None:
        """Note what was refused in this graph."""
        self._refused |= {(precision, place) for name, place in _places(model) if name in refused}

    def guess(self, model: ir.Model, precision: Precision) -> frozenset[str]:
        """The layers of this graph that stand where others were refused."""
        return frozenset(
            name for name, place in _places(model) if (precision, place) in self._refused
        )


def _places(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Names of the layers with weights, each with a name its whole family shares."""
    readers: Counter[str] = Counter()
    for layer in layers(model):
        source = layer.inputs[0].name if layer.inputs else ""
        read = f"{layer.nodes[0].op_type} of {source}"
        readers[read] += 1
        yield layer.name, f"{read}, {readers[read]}"
