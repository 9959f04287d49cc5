"""A scheme for each layer of one graph, within a number of bits per weight."""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import dataclass

from sdpack.domain.precision import UNQUANTIZED, Precision, weight_bits
from sdpack.errors import InfeasibleError
from sdpack.pack.mixed.allocate import Allocation, Choice, Limit, allocate
from sdpack.pack.mixed.layer_options import allocator_options, storage_options
from sdpack.pack.single_graph.recipe import Recipe
from sdpack.quantization.quantizable_graph import QuantizableGraph
from sdpack.quantization.schemes import MIXABLE, Abilities, Scheme

PART = "graph"


@dataclass(frozen=True)
class BitBudget:
    """Allocates bits to a graph's layers so that its outputs change least.

    Attributes:
        keep: names of layers to leave unquantized.
    """

    graph: QuantizableGraph
    recipe: Recipe
    arithmetic: Precision
    abilities: Abilities
    keep: Set[str]

    def schemes(self) -> dict[str, Scheme]:
        """The scheme of each layer that is quantized.

        Raises:
            InfeasibleError: the layers need more bits than the recipe allows.
        """
        by_name = {str(scheme): scheme for scheme in MIXABLE}
        choices = self._choices()
        options = zip(choices, self._allocated(choices).options, strict=True)
        return {
            choice.name: by_name[option.name]
            for choice, option in options
            if option.name != UNQUANTIZED
        }

    def _choices(self) -> list[Choice]:
        layers, wide = self.graph.layers(), weight_bits(self.arithmetic) // 8
        errors = self.graph.rounding_errors(MIXABLE, self.arithmetic, self.abilities)
        gains = {n: gain for n, gain in self.graph.gains().items() if n not in self.keep}
        options = storage_options(layers, MIXABLE, self.abilities, gains, errors)
        return [
            Choice(x.name, PART, allocator_options(x, options.get(x.name, []), wide))
            for x in layers
        ]

    def _allocated(self, choices: list[Choice]) -> Allocation:
        numbers = sum(layer.size for layer in self.graph.layers())
        limit = math.floor(self.recipe.bits * numbers / 8)
        try:
            return allocate(choices, [Limit(frozenset({PART}), limit)])
        except InfeasibleError as cause:
            least = math.ceil(800 * cause.smallest_bytes / numbers) / 100
            raise InfeasibleError(
                f"{self.graph.path}: its layers take at least {least} bits per weight, "
                f"scales and unquantized layers included, but {self.recipe} allows "
                f"{self.recipe.bits:g}; give mixed@{least} or more",
                cause.smallest_bytes,
            ) from cause
