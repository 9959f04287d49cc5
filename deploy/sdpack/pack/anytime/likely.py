"""The order in which a build with a time limit tries sets of parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdpack.documents.catalog import Mixable
from sdpack.domain.precision import Precision, weight_bits
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.lower_bound import may_fit
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
        return sorted(every, key=self.candidates.parameters_of, reverse=True)

    def of(self, parts: Mixable) -> Iterator[Mix]:
        """The uniform mixes of a set, in the widest precision first.

        Each comes in the largest number of steps first.
        """
        request = self.candidates.request
        for precision in sorted(request.precisions, key=_width, reverse=True):
            mix = in_precisions(parts, [precision] * len(parts.names))
            if may_fit(self.candidates, mix):
                for steps in reversed(request.step_choices(parts.denoiser)):
                    yield mix.in_steps(steps)


def _width(precision: Precision) -> tuple[int, bool]:
    """Sort key: bits of a weight; of equally wide precisions, weights alone lose less."""
    return weight_bits(precision), precision in (Precision.W8, Precision.W4)
