"""Which mixes fit a budget, each in the fastest placement in which it fits.

The search is exhaustive: there are at most thousands of mixes, and a peak is only a sum and a
maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sdpack.domain.placement import Placement, Role
from sdpack.errors import InfeasibleError, UnsupportedGraphError
from sdpack.memory.predict import Footprint, Peak, predicted_peak
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.units import format_bytes

FootprintOf = Callable[[Variant, Placement], Footprint]
"""The footprint of a variant in a placement; called often, so it should cache its results."""


@dataclass(frozen=True)
class MemoryEstimates:
    """The estimates of memory that mixes are fitted by.

    Attributes:
        footprint: the footprint of a variant in a placement.
        fixed_bytes: bytes that the process takes with any mix.
        size: the size by which mixes of equal quality are compared; None for the peak in the
            fastest placement.
        least: the least bytes that a variant takes in any placement. A mix with a part that exceeds
            the budget alone is hopeless. Its footprints, which may require compiling the part, are
            needed only for the error message, if no other mix fits either.
        prepare: called before the footprints of these variants in a placement are needed, to make
            what they depend on in parallel.
    """

    footprint: FootprintOf
    fixed_bytes: int = 0
    size: Callable[[Mix], int | None] = lambda _: None
    least: Callable[[Variant], int] = lambda _: 0
    prepare: Callable[[Collection[Variant], Placement], None] = lambda *_: None

    def peak(self, mix: Mix, placement: Placement) -> Peak:
        """The predicted peak of a mix in a placement."""
        return peak_of(mix, placement, self.footprint, self.fixed_bytes)


@dataclass(frozen=True)
class Fitted:
    """A mix in a placement, and its predicted peak.

    Attributes:
        size_bytes: the size by which mixes of equal quality are compared. By default it is the
            peak in the fastest placement, whether that fits or not. The predicted peak does not
            serve here, as the same parts take less memory in slower placements.
        rank: the rank of the placement; 0 is the fastest.
        expected_s: seconds per image as the sum of its parts; None unless there is a limit on it.
    """

    mix: Mix
    placement: Placement
    peak: Peak
    size_bytes: int
    rank: int
    expected_s: float | None = None


def peak_of(mix: Mix, placement: Placement, footprint: FootprintOf, fixed_bytes: int = 0) -> Peak:
    """The predicted peak of a mix in a placement."""
    parts: Mapping[Role, Footprint] = {
        variant.role: footprint(variant, placement) for variant in mix.variants
    }
    return predicted_peak(parts, placement.loading, fixed_bytes)


def fit(
    mixes: Iterable[Mix],
    placements: Sequence[Placement],
    memory: MemoryEstimates,
    budget_bytes: int,
) -> list[Fitted]:
    """Every mix that fits, in the first of `placements` in which it fits.

    A mix is not tried in a placement for which the compiler rejects one of its parts.

    Args:
        placements: fastest first.

    Raises:
        InfeasibleError: no mix fits; names the smallest budget that works, and its breakdown.
    """
    every = list(mixes)
    variants = {variant for mix in every for variant in mix.variants}
    too_large = {variant for variant in variants if memory.least(variant) > budget_bytes}
    hopeless = {mix for mix in every if not too_large.isdisjoint(mix.variants)}
    search = _Search(placements, memory, budget_bytes)
    fitting = search.fit([mix for mix in every if mix not in hopeless])
    fitting = fitting or search.fit(list(hopeless))
    if not fitting:
        raise infeasible(search.smallest, budget_bytes)
    return fitting


@dataclass
class _Search:
    """Tries mixes in one placement after the other.

    Attributes:
        smallest: the mix and placement with the lowest peak among those that did not fit.
    """

    placements: Sequence[Placement]
    memory: MemoryEstimates
    budget_bytes: int
    smallest: Fitted | None = None

    def fit(self, mixes: Sequence[Mix]) -> list[Fitted]:
        """The mixes that fit, in the order given."""
        sizes = {mix: self.memory.size(mix) for mix in mixes}
        found: dict[Mix, Fitted] = {}
        for rank, placement in enumerate(self.placements):
            left = [mix for mix in mixes if mix not in found]
            self.memory.prepare({variant for mix in left for variant in mix.variants}, placement)
            for mix in left:
                try:
                    peak = self.memory.peak(mix, placement)
                except UnsupportedGraphError:
                    continue
                size = sizes[mix]
                if size is None:
                    size = sizes[mix] = peak.bytes
                fitted = Fitted(mix, placement, peak, size, rank)
                if peak.bytes <= self.budget_bytes:
                    found[mix] = fitted
                elif self._is_smaller(peak):
                    self.smallest = fitted
        return [found[mix] for mix in mixes if mix in found]

    def _is_smaller(self, peak: Peak) -> bool:
        smallest = self.smallest
        return smallest is None or peak.bytes < smallest.peak.bytes


def infeasible(smallest: Fitted | None, budget_bytes: int) -> InfeasibleError:
    """The error for a budget that is below the smallest mix."""
    if smallest is None:
        return InfeasibleError("the catalog gives no mixes to choose from; check the catalog", 0)
    needed = smallest.peak.bytes
    return InfeasibleError(
        f"nothing fits into {format_bytes(budget_bytes)}: the smallest mix, {smallest.mix} "
        f"({smallest.placement}), needs {format_bytes(needed)} ({smallest.peak.words()}); give "
        f"at least --memory {-(-needed // 2**10)}KiB",
        needed,
    )
