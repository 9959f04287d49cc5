"""The order in which a build with a time limit tries sets of parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpack.documents.catalog import Mixable
from sdpack.domain.precision import Precision, weight_bits
from sdpack.errors import InfeasibleError
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.fit import MemoryEstimates, fit
from sdpack.pack.planning.lower_bound import LEAST_PROCESS, least_footprints
from sdpack.pack.planning.mix import Mix, in_precisions


@dataclass(frozen=True)
class LikelyMixes:
    """Uniform mixes of a request, the likely winners first.

    Larger parts usually draw better images, and parts lose little in wider precisions. Precisions
    that cannot fit by the sizes of the checkpoints alone are left out.
    """

    candidates: Candidates

    def sets(self) -> list[Mixable]:
        """The sets of parts that work together, those with more parameters first."""
        catalog = self.candidates.catalog
        every = list(catalog.mixable())
        return sorted(every, key=self._parameters, reverse=True)

    def of(self, parts: Mixable) -> Iterator[Mix]:
        """The uniform mixes of a set, in the widest precision first.

        Each comes in the largest number of steps first.
        """
        request = self.candidates.request
        for precision in sorted(request.precisions, key=_width, reverse=True):
            mix = in_precisions(parts, [precision] * len(parts.names))
            if self._may_fit(mix):
                for steps in reversed(request.step_choices(parts.denoiser)):
                    yield mix.in_steps(steps)

    def _parameters(self, parts: Mixable) -> int:
        return sum(self.candidates.parameters(*part) for part in parts.names.items())

    def _may_fit(self, mix: Mix) -> bool:
        request = self.candidates.request
        fixed = LEAST_PROCESS.get(request.runtime, 0)
        memory = MemoryEstimates(least_footprints(self.candidates), fixed)
        try:
            fit([mix], self.candidates.placements[-1:], memory, request.budget)
        except InfeasibleError:
            return False
        return True


def _width(precision: Precision) -> tuple[int, bool]:
    """Sort key: bits of a weight; of equally wide precisions, weights alone lose less."""
    return weight_bits(precision), precision in (Precision.W8, Precision.W4)
