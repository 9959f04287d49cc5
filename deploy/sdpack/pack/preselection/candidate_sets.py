"""The sets of parts of a request that may fit, by the sizes of their checkpoints."""

from __future__ import annotations

from sdpack.domain.precision import Precision, weight_bits
from sdpack.pack.candidates import Candidates
from sdpack.pack.planning.lower_bound import may_fit
from sdpack.pack.planning.mix import Mix, PartSet, in_precisions


def count_of_sets(candidates: Candidates) -> int:
    """The number of sets of parts, whether they may fit or not."""
    request, catalog = candidates.request, candidates.catalog
    return sum(len(request.step_choices(parts.denoiser)) for parts in catalog.mixable())


def sets_in_fp32(candidates: Candidates) -> dict[PartSet, Mix]:
    """Each set of parts, with its mix in fp32; those with more parameters first.

    A set is left out if it cannot fit even in the narrowest precision.
    """
    request, catalog = candidates.request, candidates.catalog
    narrowest = min(request.precisions, key=weight_bits)
    found: dict[PartSet, Mix] = {}
    every = list(catalog.mixable())
    for parts in sorted(every, key=candidates.parameters_of, reverse=True):
        count = len(parts.names)
        if may_fit(candidates, in_precisions(parts, [narrowest] * count)):
            mix = in_precisions(parts, [Precision.FP32] * count)
            for steps in request.step_choices(parts.denoiser):
                found[mix.in_steps(steps).part_set] = mix.in_steps(steps)
    return found
