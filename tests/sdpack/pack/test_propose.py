from types import SimpleNamespace
from typing import Any

import pytest
from sdpack.bundle import NEEDED
from sdpack.memory.predict import Footprint
from sdpack.pack.choices import Choices
from sdpack.pack.mix import Mix, Variant
from sdpack.pack.propose import Proposals
from sdpack.placement import Loading, Placement
from sdpack.precision import Precision

LEAST = 1000


def tried(
    monkeypatch: pytest.MonkeyPatch, precisions: list[Precision], is_large: bool, budget: int
) -> list[bool]:
    """Of each set of parts that is tried, whether with shared choices alone."""
    seen: list[bool] = []

    def proposed(_: Proposals, __: Any, choices: Choices) -> None:
        seen.append(choices.shared)

    monkeypatch.setattr(Proposals, "_widest", lambda _: [("widest", LEAST)])
    monkeypatch.setattr(Proposals, "_proposed", proposed)
    order = SimpleNamespace(is_large=is_large, precisions=precisions)
    footprints: Any = SimpleNamespace(workshop=SimpleNamespace(order=order))
    assert list(Proposals(footprints, [], budget).mixes()) == []
    return seen


@pytest.mark.parametrize(
    ("is_large", "budget", "shared"),
    [(True, 5 * LEAST // 4, True), (True, 5 * LEAST // 4 - 1, False), (False, 9 * LEAST, False)],
)
def test_wider_blocks_of_large_pictures_wait_for_a_tight_budget(
    monkeypatch: pytest.MonkeyPatch, is_large: bool, budget: int, shared: bool
) -> None:
    precisions = [Precision.FP16, Precision.W4]
    assert tried(monkeypatch, precisions, is_large, budget) == [shared]


def test_nothing_is_tried_where_no_layer_may_be_stored_in_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert tried(monkeypatch, [Precision.FP32, Precision.FP16], False, LEAST) == []


BYTES = {Precision.FP16: 400, Precision.W4: 100}


def tight(
    monkeypatch: pytest.MonkeyPatch, loading: Loading, budget: int
) -> tuple[set[Precision], set[Precision]]:
    """Precisions whose compiled footprints were asked for, and of the mixes worth a try."""
    asked: set[Precision] = set()

    def of(variant: Variant, _: Placement) -> Footprint:
        asked.add(variant.precision)
        return Footprint(BYTES[variant.precision], 50)

    seen: set[Precision] = set()

    def proposed(_: Proposals, widest: Mix, __: Choices) -> None:
        seen.update(variant.precision for variant in widest.variants)

    monkeypatch.setattr(Proposals, "_weight", lambda _, mix: mix.variants[0].precision == "fp16")
    monkeypatch.setattr(Proposals, "_parameters", lambda _, __: 1)
    monkeypatch.setattr(Proposals, "_proposed", proposed)
    order = SimpleNamespace(
        is_large=False, precisions=[*BYTES], placements=[Placement(loading=loading)]
    )
    footprints: Any = SimpleNamespace(
        workshop=SimpleNamespace(order=order),
        of=of,
        least_bytes=lambda variant: BYTES[variant.precision] * 9 // 10,
        fixed_bytes=0,
    )
    possible = [Mix.of(*(Variant(role, "a", one) for role in NEEDED)) for one in BYTES]
    list(Proposals(footprints, possible, budget).mixes())
    return asked, seen


@pytest.mark.parametrize(
    ("loading", "budget", "asked", "seen"),
    [
        (Loading.RESIDENT, 1000, {Precision.W4}, {Precision.FP16}),  # 1,080 in files
        (Loading.RESIDENT, 1100, {Precision.W4, Precision.FP16}, {Precision.FP16}),  # needs 1,250
        (Loading.RESIDENT, 1250, {Precision.W4, Precision.FP16}, set()),
        (Loading.PHASED, 350, {Precision.W4}, {Precision.FP16}),
        (Loading.PHASED, 400, {Precision.W4, Precision.FP16}, {Precision.FP16}),
        (Loading.PHASED, 450, {Precision.W4, Precision.FP16}, set()),
        (Loading.RESIDENT, 200, {Precision.W4}, set()),  # nor would the lightest
    ],
)
def test_what_is_larger_than_the_device_is_not_compiled_to_see_that_it_is(
    monkeypatch: pytest.MonkeyPatch,
    loading: Loading,
    budget: int,
    asked: set[Precision],
    seen: set[Precision],
) -> None:
    assert len(NEEDED) == 3
    assert tight(monkeypatch, loading, budget) == (asked, seen)
