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
    """Makes the mixes of a request's sets of parts for one budget."""

    toolchain: Toolchain
    footprints: Footprints
    budget_bytes: int

    def uniform(
        self, sets: Container[PartSet] | None = None, also_calibrated: bool = False
    ) -> list[Mix]:
        """The uniform mixes that can be built; see `buildable`."""
        return buildable(self.toolchain, sets, also_calibrated)

    def mixed(self, uniform: Sequence[Mix]) -> list[Mix]:
        """The mixed mixes that are worth racing against these."""
        proposals = Proposals(self.toolchain, self.footprints, uniform, self.budget_bytes)
        return list(proposals.mixes())

    def fitting(self, possible: Sequence[Mix]) -> list[Fitted]:
        """Those of these mixes that fit the budget.

        Raises:
            InfeasibleError: none does.
        """
        candidates = self.toolchain.candidates
        return fitting(candidates.placements, self.footprints, possible, self.budget_bytes)
