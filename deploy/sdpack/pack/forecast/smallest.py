"""A lower bound of the memory of every mix, from its number of parameters alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdpack.domain.placement import Loading, Placement
from sdpack.domain.precision import weight_bits
from sdpack.errors import InfeasibleError
from sdpack.memory.predict import Footprint
from sdpack.pack.planning.fit import Fitted, MemoryEstimates, fit
from sdpack.pack.planning.lower_bound import LEAST_PROCESS, LEAST_SCRATCH
from sdpack.pack.planning.mix import Variant, mixes
from sdpack.pack.request import BuildRequest

UNLIMITED = 2**62


@dataclass(frozen=True)
class LowerBound:
    """A lower bound of the peak memory of a request's mixes: weights plus minimal scratch memory.

    Attributes:
        parameters: number of parameters of each candidate, by group of roles and name.
    """

    request: BuildRequest
    parameters: Mapping[tuple[str, str], int]

    def smallest(self) -> Fitted:
        """Return the mix with the lowest bound, in the placement that needs the least memory.

        Raises:
            InfeasibleError: the request's budget is below that bound.
        """
        self.check()
        fitted = self._fitting(UNLIMITED)
        return min(fitted, key=lambda each: (each.peak.bytes, self._weight_bytes(each), each.mix))

    def check(self) -> None:
        """Refuse a budget that cannot hold the weights of any mix.

        Raises:
            InfeasibleError: the budget is below the lowest bound, which the error states.
        """
        try:
            self._fitting(self.request.budget)
        except InfeasibleError as error:
            raise InfeasibleError(
                f"{error}; this is a lower bound from the numbers of parameters: nothing was "
                "fetched or exported for it",
                error.smallest_bytes,
            ) from error

    def _fitting(self, budget_bytes: int) -> list[Fitted]:
        request = self.request
        loading = list(request.profile.loading)[-1]
        guidance = list(request.profile.guidance)[-1]
        every = mixes(request.catalog, request.precisions)
        fixed = LEAST_PROCESS.get(request.runtime, 0)
        placement = Placement(Loading(loading), guidance)
        return fit(every, [placement], MemoryEstimates(self._least, fixed), budget_bytes)

    def _weight_bytes(self, fitted: Fitted) -> int:
        variants = fitted.mix.variants
        return sum(self._least(v, fitted.placement).weight_bytes for v in variants)

    def _least(self, variant: Variant, _: Placement) -> Footprint:
        parameters = self.parameters[variant.role.group, variant.candidate]
        scratch = LEAST_SCRATCH.get(self.request.runtime, 0)
        return Footprint(parameters * weight_bits(variant.precision) // 8, scratch)
