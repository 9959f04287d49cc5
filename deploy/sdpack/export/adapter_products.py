"""The changes of weights that the tensors of an adapter's layer make.

    up @ down                             LoRA (Hu et al. 2021)
    (w1_a @ w1_b) * (w2_a @ w2_b)         LoHa (Hyeon-Woo et al. 2022)
    w1 (x) w2, the Kronecker product      LoKr (Yeh et al. 2024)

A factor of LoHa and LoKr is a matrix, the product of two, or, for a convolution, the product of two
matrices with a small kernel between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sdpack.export.adapter_file import AdapterTensor

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]


class Product(Protocol):
    """A change of a weight, before it is scaled."""

    @property
    def peft_type(self) -> str:
        """PEFT's name of the kind of adapter."""

    @property
    def rank(self) -> int | None:
        """The number that alpha is divided by; None if alpha does not count."""

    @property
    def made(self) -> Shape:
        """The shape of the change; kernels may be flattened."""

    def fits(self, shape: Shape) -> bool:
        """Whether the tensors fit together, and make a change of a weight of this shape."""

    def product(self) -> Tensor:
        """Return the change; it can be reshaped to the weight's shape."""


@dataclass(frozen=True)
class LowRank:
    """The change of a LoRA; `mid` is the kernel between the two factors of a convolution."""

    down: Tensor
    up: Tensor
    mid: Tensor | None = None

    @property
    def peft_type(self) -> str:
        return "LORA"

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def made(self) -> Shape:
        kernel = (self.down if self.mid is None else self.mid).shape[2:]
        return (self.up.shape[0], *self.down.shape[1:2], *kernel)

    def fits(self, shape: Shape) -> bool:
        inner = self.up.shape[1] if self.up.ndim > 1 else 0
        is_joined = (
            inner == self.rank
            if self.mid is None
            else tuple(self.mid.shape[:2]) == (inner, self.rank)
        )
        ones = (*self.up.shape[2:], *(() if self.mid is None else self.down.shape[2:]))
        is_flat = all(side == 1 for side in ones)
        return is_joined and is_flat and _without_ones(self.made) == _without_ones(shape)

    def product(self) -> Tensor:
        import torch

        up, down = self.up.flatten(1), self.down.flatten(1)
        if self.mid is None:
            return up @ down
        return torch.einsum("or,rskl,si->oikl", up, self.mid, down)


@dataclass(frozen=True)
class Factor:
    """A factor of a LoHa or LoKr: `first`, `first @ second`, or these around a kernel `core`.

    With a core, `first` is (rank, outputs) instead of (outputs, rank).
    """

    first: Tensor
    second: Tensor | None = None
    core: Tensor | None = None

    @property
    def rank(self) -> int | None:
        return None if self.second is None else self.second.shape[0]

    @property
    def is_joined(self) -> bool:
        """Whether its tensors fit together."""
        if self.second is None:
            return self.first.ndim > 1
        if self.core is None:
            return self.first.ndim > 1 and self.first.shape[1] == self.second.shape[0]
        return tuple(self.core.shape[:2]) == (self.first.shape[0], self.second.shape[0])

    @property
    def made(self) -> Shape:
        """Its shape as a matrix, with flattened kernels."""
        if self.second is None:
            return _flat(self.first.shape)
        if self.core is None:
            return self.first.shape[0], math.prod(self.second.shape[1:])
        return self.first.shape[1], self.second.shape[1] * math.prod(self.core.shape[2:])

    def product(self) -> Tensor:
        import torch

        if self.second is None:
            return self.first.flatten(1)
        if self.core is None:
            return self.first @ self.second.flatten(1)
        return torch.einsum("rskl,si,ro->oikl", self.core, self.second, self.first).flatten(1)


@dataclass(frozen=True)
class Hadamard:
    """The change of a LoHa: the product of two factors, number by number."""

    first: Factor
    second: Factor

    @property
    def peft_type(self) -> str:
        return "LOHA"

    @property
    def rank(self) -> int | None:
        return self.first.rank

    @property
    def made(self) -> Shape:
        return self.first.made

    def fits(self, shape: Shape) -> bool:
        is_joined = self.first.is_joined and self.second.is_joined
        return is_joined and self.first.made == self.second.made == _flat(shape)

    def product(self) -> Tensor:
        return self.first.product() * self.second.product()


@dataclass(frozen=True)
class Kronecker:
    """The change of a LoKr: copies of the second factor, scaled by the numbers of the first."""

    first: Factor
    second: Factor

    @property
    def peft_type(self) -> str:
        return "LOKR"

    @property
    def rank(self) -> int | None:
        return self.first.rank or self.second.rank

    @property
    def made(self) -> Shape:
        first, second = self.first.made, self.second.made
        return first[0] * second[0], first[1] * second[1]

    def fits(self, shape: Shape) -> bool:
        return self.first.is_joined and self.second.is_joined and self.made == _flat(shape)

    def product(self) -> Tensor:
        import torch

        return torch.kron(self.first.product(), self.second.product())


def lycoris_product(tensors: Mapping[AdapterTensor, Tensor]) -> Hadamard | Kronecker | None:
    """Return the change that a LoHa's or LoKr's tensors make; None for those of a LoRA."""
    kind = AdapterTensor
    if kind.HADA_W1_A in tensors:
        return Hadamard(
            Factor(tensors[kind.HADA_W1_A], tensors[kind.HADA_W1_B], tensors.get(kind.HADA_T1)),
            Factor(tensors[kind.HADA_W2_A], tensors[kind.HADA_W2_B], tensors.get(kind.HADA_T2)),
        )
    if kind.DOWN in tensors:
        return None
    firsts = [tensors.get(kind.LOKR_W1), tensors.get(kind.LOKR_W1_A)]
    seconds = [tensors.get(kind.LOKR_W2), tensors.get(kind.LOKR_W2_A)]
    (first,) = (each for each in firsts if each is not None)
    (second,) = (each for each in seconds if each is not None)
    return Kronecker(
        Factor(first, tensors.get(kind.LOKR_W1_B)),
        Factor(second, tensors.get(kind.LOKR_W2_B), tensors.get(kind.LOKR_T2)),
    )


def input_width(shapes: Mapping[AdapterTensor, Shape]) -> int | None:
    """Return the number of inputs of a layer's weight, a matrix; None if it is not known.

    Args:
        shapes: shapes of the layer's tensors.
    """
    kind = AdapterTensor
    for piece in (kind.DOWN, kind.HADA_W1_B):
        if piece in shapes:
            return shapes[piece][1]
    first = shapes.get(kind.LOKR_W1, shapes.get(kind.LOKR_W1_B))
    second = shapes.get(kind.LOKR_W2, shapes.get(kind.LOKR_W2_B))
    return None if first is None or second is None else first[1] * second[1]


def _flat(shape: Iterable[int]) -> Shape:
    """The shape of a weight as a matrix, with flattened kernels."""
    outputs, *others = shape
    return outputs, math.prod(others)


def _without_ones(shape: Iterable[int]) -> Shape:
    """Drop the sides of a 1x1 kernel from a shape, so that it equals a matrix's."""
    sides = tuple(shape)
    return sides[:2] if all(side == 1 for side in sides[2:]) else sides
