"""`fit` against brute force on random instances."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.documents.manifest import NEEDED
from sdpack.domain.placement import Guidance, Loading, Placement, Role
from sdpack.domain.precision import Precision
from sdpack.errors import InfeasibleError, UnsupportedGraphError
from sdpack.memory.predict import Footprint
from sdpack.pack.planning.fit import Fitted, MemoryEstimates, fit
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.units import parse_bytes

PLACEMENTS = [
    Placement(loading, guidance, tile)
    for loading in Loading
    for tile in (None, 32)
    for guidance in Guidance
]
sizes = st.integers(0, 1000)


# The roles of every pipeline, and the text encoders that only some have.
ROLES = (*NEEDED, Role.TEXT_ENCODER_2, Role.TEXT_ENCODER_3)


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[Mix], dict[tuple[Variant, Placement], Footprint]]:
    variants = {
        role: [
            Variant(role, name, precision)
            for name in "ab"[: draw(st.integers(1, 2))]
            for precision in (Precision.FP16, Precision.W4)
        ]
        for role in ROLES[: draw(st.integers(3, 5))]
    }
    footprints = {
        (variant, placement): Footprint(draw(sizes), draw(sizes), draw(st.integers(0, 50)))
        for candidates in variants.values()
        for variant in candidates
        for placement in PLACEMENTS
    }
    return [Mix.of(*parts) for parts in product(*variants.values())], footprints


def brute_peak(
    mix: Mix, placement: Placement, footprints: dict[tuple[Variant, Placement], Footprint]
) -> int:
    """The peak, computed moment by moment."""
    parts = [footprints[variant, placement] for variant in mix.variants]
    if placement.loading is Loading.RESIDENT:
        return sum(f.weight_bytes for f in parts) + max(f.activation_bytes for f in parts)
    return max(
        now.weight_bytes + now.activation_bytes + sum(f.residue_bytes for f in parts[:place])
        for place, now in enumerate(parts)
    )


@given(instances(), st.integers(0, 4000), st.integers(0, 200))
def test_fit_agrees_with_brute_force(
    instance: tuple[list[Mix], dict[tuple[Variant, Placement], Footprint]],
    budget: int,
    fixed: int,
) -> None:
    mixes, footprints = instance
    peaks = {
        (mix, placement): brute_peak(mix, placement, footprints) + fixed
        for mix in mixes
        for placement in PLACEMENTS
    }
    expected = {}
    for mix in mixes:
        fitting = [p for p in PLACEMENTS if peaks[mix, p] <= budget]
        if fitting:
            expected[mix] = (fitting[0], peaks[mix, fitting[0]])
    try:
        memory = MemoryEstimates(lambda v, p: footprints[v, p], fixed)
        fitted = fit(mixes, PLACEMENTS, memory, budget)
    except InfeasibleError as error:
        fitted, smallest = [], error.smallest_bytes
    else:
        smallest = min(peaks.values())
    assert {f.mix: (f.placement, f.peak.bytes) for f in fitted} == expected
    assert all(f.size_bytes == peaks[f.mix, PLACEMENTS[0]] for f in fitted)
    assert smallest == min(peaks.values())


@given(instances(), st.integers(0, 4000), st.integers(0, 2000))
def test_a_larger_budget_never_loses_a_mix(
    instance: tuple[list[Mix], dict[tuple[Variant, Placement], Footprint]], budget: int, more: int
) -> None:
    mixes, footprints = instance
    memory = MemoryEstimates(lambda v, p: footprints[v, p])

    def fitting(limit: int) -> set[Mix]:
        try:
            return {f.mix for f in fit(mixes, PLACEMENTS, memory, limit)}
        except InfeasibleError:
            return set()

    assert fitting(budget) <= fitting(budget + more)


@given(instances(), st.integers(0, 3000))
def test_footprints_of_hopeless_mixes_are_not_computed_and_the_result_is_the_same(
    instance: tuple[list[Mix], dict[tuple[Variant, Placement], Footprint]], budget: int
) -> None:
    mixes, footprints = instance
    computed: set[Variant] = set()

    def least(variant: Variant) -> int:
        return min(footprints[variant, placement].weight_bytes for placement in PLACEMENTS)

    def of(variant: Variant, placement: Placement) -> Footprint:
        computed.add(variant)
        return footprints[variant, placement]

    def result(memory: MemoryEstimates) -> list[Fitted] | int:
        try:
            return fit(mixes, PLACEMENTS, memory, budget)
        except InfeasibleError as error:
            return error.smallest_bytes

    expected = result(MemoryEstimates(lambda v, p: footprints[v, p]))
    assert result(MemoryEstimates(of, least=least)) == expected
    if not isinstance(expected, int):
        hopeful = [m for m in mixes if all(least(v) <= budget for v in m.variants)]
        assert computed == {variant for mix in hopeful for variant in mix.variants}


def test_a_placement_for_which_the_compiler_rejects_a_part_is_left_out() -> None:
    mix = Mix.of(*(Variant(role, "a", Precision.W4) for role in NEEDED))
    slow = Placement(guidance=Guidance.SEQUENTIAL)

    def footprints(variant: Variant, placement: Placement) -> Footprint:
        if variant.role is Role.DENOISER and placement == Placement():
            raise UnsupportedGraphError("not so")
        return Footprint(10, 1)

    memory = MemoryEstimates(footprints)
    (fitted,) = fit([mix], [Placement(), slow], memory, 100)
    assert fitted.placement == slow
    with pytest.raises(InfeasibleError, match="no mixes"):
        fit([mix], [Placement()], memory, 100)


def test_the_error_suggests_a_budget_that_works() -> None:
    parts = [Variant(role, "a", Precision.W4) for role in NEEDED]
    mix = Mix.of(*parts)

    def footprints(variant: Variant, _: Placement) -> Footprint:
        return Footprint(1_000_001, 500_000 if variant.role is Role.DENOISER else 0)

    memory = MemoryEstimates(footprints)
    with pytest.raises(InfeasibleError, match="nothing fits into 1 B") as caught:
        fit([mix], [Placement()], memory, 1)
    message = str(caught.value)
    assert "denoiser 976.6 KiB" in message
    assert "scratch of the denoiser 488.3 KiB" in message
    suggested = parse_bytes(message.rpartition("--memory ")[2])
    assert suggested >= caught.value.smallest_bytes == 3 * 1_000_001 + 500_000
    assert len(fit([mix], [Placement()], memory, suggested)) == 1


def test_a_catalog_without_mixes_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="no mixes"):
        fit([], PLACEMENTS, MemoryEstimates(lambda v, p: Footprint(0, 0)), 100)


@given(instances(), st.integers(0, 6000))
def test_footprints_are_prepared_before_they_are_needed_and_only_then(
    instance: tuple[list[Mix], dict[tuple[Variant, Placement], Footprint]], budget: int
) -> None:
    mixes, footprints = instance
    prepared: set[tuple[Variant, Placement]] = set()
    needed: set[tuple[Variant, Placement]] = set()

    def footprint(variant: Variant, placement: Placement) -> Footprint:
        needed.add((variant, placement))
        return footprints[variant, placement]

    memory = MemoryEstimates(
        footprint,
        prepare=lambda variants, placement: prepared.update((v, placement) for v in variants),
    )
    with suppress(InfeasibleError):
        fit(mixes, PLACEMENTS, memory, budget)
    assert prepared == needed
