"""The ways to store one layer, each with its size and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdpack.domain.precision import UNQUANTIZED
from sdpack.pack.mixed.allocate import Option
from sdpack.quantization.folding import stored_bytes
from sdpack.quantization.layers import Layer
from sdpack.quantization.quantizable_graph import RoundingErrors
from sdpack.quantization.schemes import Abilities, Scheme, suited


@dataclass(frozen=True)
class StorageOption:
    """A scheme for a layer.

    Attributes:
        form: the scheme in the form that the layer and the runtime support.
        cost: how much the output changes, in the unit of the gains.
    """

    scheme: Scheme
    form: Scheme
    cost: float


def storage_options(
    layers: Sequence[Layer],
    schemes: Sequence[Scheme],
    abilities: Abilities,
    gains: Mapping[str, float],
    errors: RoundingErrors,
) -> dict[str, list[StorageOption]]:
    """Return the schemes that each layer supports, by name; layers with none are left out.

    Args:
        gains: gain of each layer; a scheme's cost is its error times this. Layers whose rounding
            makes outputs NaN have no gain, and therefore no options.
    """
    options: dict[str, list[StorageOption]] = {}
    for layer in layers:
        for scheme in schemes:
            form = suited(layer, scheme, abilities)
            if form is not None and layer.name in gains:
                cost = gains[layer.name] * errors[layer.name][str(form)]
                options.setdefault(layer.name, []).append(StorageOption(scheme, form, cost))
    return options


def allocator_options(
    layer: Layer, stored: Sequence[StorageOption], wide: int
) -> tuple[Option, ...]:
    """The options of a layer for the allocator; the first leaves it unquantized.

    Args:
        wide: bytes of one number in the type the graph computes in, which scales have as well.
    """
    unquantized = layer.size * min(wide, stored_bytes(layer.weight))
    return (
        Option(UNQUANTIZED, unquantized, 0.0),
        *(Option(str(each.scheme), each.form.bytes_of(layer, wide), each.cost) for each in stored),
    )
