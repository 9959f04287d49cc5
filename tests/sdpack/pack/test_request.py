from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.errors import InfeasibleError
from sdpack.memory.predict import Footprint
from sdpack.pack.candidates import Candidates
from sdpack.pack.checks import check
from sdpack.pack.planning.lower_bound import LEAST_SCRATCH, least_footprint
from sdpack.pack.planning.mix import Variant
from sdpack.pack.request import BuildRequest


def request(name: str = "4gb-gpu", **changes: Any) -> BuildRequest:
    values = {"profile": find_profile(name), "located": default_catalog(), "out": Path("x")}
    return BuildRequest(**{**values, **changes})


def test_the_zoo_draws_at_its_own_size_on_a_device_that_allows_larger_ones() -> None:
    assert (request().height, request().width) == (64, 64)
    assert Candidates(request()).latent_rows(Role.DENOISER, "s") == (8, 8)


@pytest.mark.parametrize("wide", [Precision.FP32, Precision.BF16])
def test_wide_types_are_tried_on_a_gpu_only_if_the_profile_names_them(wide: Precision) -> None:
    assert wide not in request().precisions
    profile = find_profile("4gb-gpu").model_copy(update={"precisions": (wide,)})
    assert request(profile=profile).precisions == (wide,)
    assert Precision.FP32 in request("cpu-4gb").precisions


def test_the_budget_is_the_profile_s_unless_one_is_given() -> None:
    assert request().budget == find_profile("4gb-gpu").budget_bytes
    assert request(budget_bytes=5).budget == 5


def test_a_hopeless_budget_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InfeasibleError, match="a lower bound") as caught:
        check(Candidates(request(budget_bytes=2**20)))
    assert caught.value.smallest_bytes > 2**20
    check(Candidates(request(budget_bytes=caught.value.smallest_bytes)))


def test_devices_that_build_their_own_engines_pass_the_checks() -> None:
    check(Candidates(request("h200")))
    check(Candidates(request("jetson-orin-nano-8gb")))


def test_the_lower_bound_counts_weights_at_their_bits() -> None:
    checkpoint = Candidates(request()).checkpoint(Role.DENOISER, "s")
    footprints = [
        least_footprint(
            checkpoint,
            Variant(Role.DENOISER, "s", precision),
            Placement(),
            (8, 8),
            Runtime.TENSORRT_RTX,
        )
        for precision in (Precision.FP16, Precision.W8, Precision.W4)
    ]
    count = checkpoint.parameters
    scratch = LEAST_SCRATCH[Runtime.TENSORRT_RTX]
    assert footprints == [Footprint(count * bits // 8, scratch) for bits in (16, 8, 4)]
