"""The mixes that can be built, and the ones that also fit the budget."""

from __future__ import annotations

from collections.abc import Container, Sequence

from sdpack.domain.placement import Placement, Role
from sdpack.errors import UnsupportedGraphError
from sdpack.pack.parallel.graphs import prepare_graphs
from sdpack.pack.planning.fit import Fitted, MemoryEstimates, fit
from sdpack.pack.planning.footprints import Footprints
from sdpack.pack.planning.mix import Mix, PartSet, Variant, mixes
from sdpack.pack.toolchain import Toolchain


def buildable(
    toolchain: Toolchain,
    sets: Container[PartSet] | None = None,
    also_calibrated: bool = False,
) -> list[Mix]:
    """The mixes of a request whose variants the target's compiler all supports.

    Variants with identical graphs are listed once: a part without matrix products is the same in w4
    as in w8, and is listed as w8.

    Args:
        sets: the sets of parts to build; None for all.
        also_calibrated: see `prepare_graphs`.

    Raises:
        UnsupportedGraphError: no mix can be built.
    """
    context, builder = toolchain.context, toolchain.variants
    request = toolchain.request
    every = [
        mix
        for mix in mixes(context.catalog, request.precisions, request.step_choices)
        if sets is None or mix.part_set in sets
    ]
    variants = list(dict.fromkeys(variant for mix in every for variant in mix.variants))
    prepare_graphs(toolchain, variants, also_calibrated)
    builder.prepare(variants)
    failed: list[UnsupportedGraphError] = []
    known: set[tuple[Role, str, str | None, str]] = set()
    distinct: set[Variant] = set()
    for variant in variants:
        try:
            built = builder.built(variant)
        except UnsupportedGraphError as error:
            context.say(f"left out: {error}")
            failed.append(error)
            continue
        key = (variant.role, variant.candidate, variant.partner, built.artifact.content)
        if key not in known:
            known.add(key)
            distinct.add(variant)
    buildable_mixes = [mix for mix in every if distinct.issuperset(mix.variants)]
    if not buildable_mixes:
        raise failed[0]
    return buildable_mixes


def fitting(
    placements: Sequence[Placement],
    footprints: Footprints,
    possible: Sequence[Mix],
    budget_bytes: int,
) -> list[Fitted]:
    """Every mix of `possible` that fits, in the fastest of `placements` in which it fits.

    Raises:
        InfeasibleError: no mix fits.
    """
    memory = MemoryEstimates(
        footprints.of,
        footprints.fixed_bytes,
        footprints.size_bytes,
        footprints.least_bytes,
        footprints.prepare,
    )
    return fit(possible, placements, memory, budget_bytes)
