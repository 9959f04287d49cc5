"""The mixes that some sets of parts make, and the ones that fit."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from sdpack.pack.mixed.propose import Proposals
from sdpack.pack.planning.feasible import buildable, fitting
from sdpack.pack.planning.fit import Fitted
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, PartSet
from sdpack.pack.toolchain import Toolchain


@dataclass(frozen=True)
class MixesOfSets:
    """Makes the mixes of a request's sets of parts."""

    toolchain: Toolchain
    footprints: Footprints

    def uniform(
        self, sets: Container[PartSet] | None = None, also_calibrated: bool = False
    ) -> list[Mix]:
        """The uniform mixes that can be built; see `buildable`."""
        return buildable(self.toolchain, sets, also_calibrated)

    def mixed(self, uniform: Sequence[Mix]) -> list[Mix]:
        """The mixed mixes that are worth racing against these."""
        budget = self.toolchain.request.budget
        return list(Proposals(self.toolchain, self.footprints, uniform, budget).mixes())

    def fitting(self, possible: Sequence[Mix]) -> list[Fitted]:
        """Those of these mixes that fit the budget.

        Raises:
            InfeasibleError: none does.
        """
        budget, candidates = self.toolchain.request.budget, self.toolchain.candidates
        return fitting(candidates.placements, self.footprints, possible, budget)
