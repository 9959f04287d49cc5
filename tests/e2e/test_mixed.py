"""Layers, what storing them costs, and mixes made of that, on a catalog of tiny parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdpack.documents.catalog_files import read_catalog
from sdpack.documents.manifest import NEEDED
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.domain.precision import UNQUANTIZED, Precision
from sdpack.engines.onnxruntime import load
from sdpack.pack.context import BuildContext
from sdpack.pack.mixed.allocate import Allocation, Limit, allocate
from sdpack.pack.mixed.choices import Choices
from sdpack.pack.mixed.sensitivity import Sensitivities
from sdpack.pack.planning.mix import Mix, Variant
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain
from sdpack.pack.variants.graph_files import fused_attention_graph
from sdpack.quantization.layers import Layer
from sdpack.quantization.rounded_weights import fill
from sdpack.quantization.schemes import Scheme
from sdpack.quantization.sensitivity import uneven
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger

from tests.e2e import tiny

pytestmark = pytest.mark.slow

ROLES = frozenset(role.value for role in NEEDED)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What the progress says."""
    return []


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> Iterator[Toolchain]:
    folder = tmp_path_factory.mktemp("mixed")
    located = read_catalog(tiny.write_catalog(folder / "catalog") / "catalog.yaml")
    request = BuildRequest(find_profile("cpu-2gb"), located, folder / "out")
    ledger = Ledger(folder / "ledger.sqlite")
    context = BuildContext(request, Store(folder / "store"), ledger, lines.append)
    yield Toolchain.of(context)
    ledger.close()


def uniform(precision: Precision) -> Mix:
    names = {Role.TEXT_ENCODER: "e", Role.DENOISER: "d", Role.DECODER: "v"}
    return Mix.of(*(Variant(role, name, precision) for role, name in names.items()))


def sensitivities(toolchain: Toolchain) -> Sensitivities:
    return Sensitivities(toolchain.context, toolchain.calibration, toolchain.variants)


def file_bytes(toolchain: Toolchain, mix: Mix) -> int:
    return sum(toolchain.variants.built(variant).artifact.bytes for variant in mix.variants)


def test_uniform_variants_take_what_the_allocator_thinks(toolchain: Toolchain) -> None:
    choices = Choices.of_toolchain(toolchain)
    taken = {
        precision: sum(choices.layer_bytes(variant) for variant in uniform(precision).variants)
        for precision in (Precision.FP32, Precision.W8, Precision.W4)
    }
    assert taken[Precision.W4] < taken[Precision.W8] < taken[Precision.FP32]
    files = {precision: file_bytes(toolchain, uniform(precision)) for precision in taken}
    for narrow in (Precision.W8, Precision.W4):
        predicted = taken[Precision.FP32] - taken[narrow]
        # A node and two names for each layer.
        assert files[Precision.FP32] - files[narrow] == pytest.approx(predicted, rel=0.2)


def test_choices_that_are_shared_are_those_of_uniform_variants(
    toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is rounded anew for them."""
    wide = uniform(Precision.FP32)
    every, shared = (
        Choices.of_toolchain(toolchain).of_mix(wide),
        Choices.of_toolchain(toolchain, shared=True).of_mix(wide),
    )
    assert [choice.name for choice in shared] == [choice.name for choice in every]
    names = {option.name for choice in shared for option in choice.options}
    assert names == {UNQUANTIZED, "w8", "w4:32"}
    assert {"w4:64", "w4:128"} <= {option.name for choice in every for option in choice.options}
    anew: list[str] = []

    def spied(forms: Mapping[Path, Collection[tuple[Layer, Scheme]]], *given: Any) -> None:
        anew.extend(layer.name for layers in forms.values() for layer, _ in layers)
        fill(forms, *given)

    monkeypatch.setattr("sdpack.pack.variants.variant_graphs.fill", spied)
    least = sum(min(option.bytes for option in choice.options) for choice in shared)
    for choices, limit, is_anew in ((shared, 2 * least, False), (every, least - 1, True)):
        mix = Choices.of_toolchain(toolchain).mix(
            wide, choices, allocate(choices, [Limit(ROLES, limit)])
        )
        assert file_bytes(toolchain, mix) > 0
        assert bool(anew) is is_anew


def test_a_mixed_mix_is_what_was_allocated(toolchain: Toolchain) -> None:
    choices = Choices.of_toolchain(toolchain)
    wide = uniform(Precision.FP32)
    listed = choices.of_mix(wide)
    least = sum(min(option.bytes for option in choice.options) for choice in listed)
    most = sum(max(option.bytes for option in choice.options) for choice in listed)
    before, costs = 0, []
    for limit in np.linspace(least, most, 4).astype(int):
        found = allocate(listed, [Limit(ROLES, int(limit))])
        mix = choices.mix(wide, listed, found)
        assert all(variant.precision is Precision.MIXED for variant in mix.variants)
        stored = {name for variant in mix.variants for name, _ in variant.schemes}
        assert len(stored) == sum(option.name != UNQUANTIZED for option in found.options)
        assert file_bytes(toolchain, mix) > before
        before = file_bytes(toolchain, mix)
        costs.append(found.cost)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0


def test_a_layer_costs_more_the_fewer_bits_it_has(toolchain: Toolchain) -> None:
    for choice in Choices.of_toolchain(toolchain).of_mix(uniform(Precision.FP32)):
        cost = {option.name: option.cost for option in choice.options}
        assert cost[UNQUANTIZED] == 0
        assert cost["w8"] > 0
        if "w4:32" in cost:
            assert cost["w4:32"] >= cost["w8"]


def test_sensitivities_are_measured_once(toolchain: Toolchain, lines: list[str]) -> None:
    denoiser = uniform(Precision.FP32).denoiser
    first = sensitivities(toolchain).of(denoiser)
    lines.clear()
    again = sensitivities(toolchain).of(denoiser)
    assert again == first
    assert not lines
    assert first.scale > 0
    assert first.measured == pytest.approx(first.scale * first.predicted)
    assert all(gain > 0 for gain in first.gains.values())


def test_int8_spares_the_inputs_that_would_harm_most(toolchain: Toolchain) -> None:
    denoiser = uniform(Precision.INT8).denoiser
    calibration = toolchain.calibration
    spared = uneven(calibration.observed(denoiser).noise, calibration.of(denoiser).gains())
    schemes = toolchain.variants.graphs.schemes(denoiser, frozenset())
    assert {name for name, scheme in schemes.items() if not scheme.inputs} == spared


def test_kept_layers_are_those_of_the_fp32_graph(toolchain: Toolchain) -> None:
    choices = Choices.of_toolchain(toolchain)
    wide = uniform(Precision.FP32)
    listed = choices.of_mix(wide)
    kept = Allocation(
        tuple(next(o for o in c.options if o.name == UNQUANTIZED) for c in listed), 0, 0, 0
    )
    mix = choices.mix(wide, listed, kept)
    x = toolchain.calibration.inputs.batches(wide.decoder)[0]
    seen = []
    for path in (
        fused_attention_graph(toolchain.sources.of(wide.decoder)),
        toolchain.variants.built(mix.decoder).path,
    ):
        with load(path, threads=1) as session:
            (output,) = session.run(x).values()
            seen.append(output)
    kept_as_it_is, made = seen
    assert np.array_equal(kept_as_it_is, made)
