from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sdpack.errors import InfeasibleError
from sdpack.pack.mixed.allocate import Allocation, Choice, Limit, Option, allocate, tied

PARTS = ("text_encoder", "denoiser", "decoder")

options = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 1000)), min_size=1, max_size=4).map(
    lambda pairs: tuple(Option(f"o{i}", b, c / 7) for i, (b, c) in enumerate(pairs))
)
instances = st.lists(st.tuples(st.sampled_from(PARTS), options), min_size=1, max_size=6).map(
    lambda pairs: [Choice(f"l{i}", part, o) for i, (part, o) in enumerate(pairs)]
)


def brute_force(choices: list[Choice], limits: list[Limit]) -> float | None:
    """The least cost of all combinations that fit; None if none fits."""
    best = None
    for combination in product(*(choice.options for choice in choices)):
        pairs = list(zip(choices, combination, strict=True))
        if all(sum(o.bytes for c, o in pairs if c.part in x.parts) <= x.bytes for x in limits):
            cost = sum(option.cost for option in combination)
            best = cost if best is None else min(best, cost)
    return best


def check(allocation: Allocation, choices: list[Choice], limits: list[Limit]) -> None:
    pairs = list(zip(choices, allocation.options, strict=True))
    assert all(option in choice.options for choice, option in pairs)
    for limit in limits:
        assert sum(o.bytes for c, o in pairs if c.part in limit.parts) <= limit.bytes
    assert allocation.cost == pytest.approx(sum(option.cost for option in allocation.options))


@settings(deadline=None, max_examples=150)
@given(instances, st.integers(0, 400))
def test_resident_parts_share_a_budget_optimally(choices: list[Choice], room: int) -> None:
    agree(choices, [Limit(frozenset(PARTS), room)])


@settings(deadline=None, max_examples=100)
@given(instances, st.tuples(*(st.integers(0, 200) for _ in PARTS)))
def test_phased_parts_have_a_budget_each(choices: list[Choice], rooms: tuple[int, ...]) -> None:
    agree(choices, [Limit(frozenset({p}), r) for p, r in zip(PARTS, rooms, strict=True)])


def agree(choices: list[Choice], limits: list[Limit]) -> None:
    expected = brute_force(choices, limits)
    if expected is None:
        with pytest.raises(InfeasibleError, match="take at least"):
            allocate(choices, limits)
        return
    allocation = allocate(choices, limits)
    check(allocation, choices, limits)
    assert allocation.gap == 0
    assert allocation.cost == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_two_thousand_layers_are_solved_to_the_optimum() -> None:
    """The relaxation without integrality, which bounds the cost, splits at most one layer."""
    rng = np.random.default_rng(0)
    choices = []
    for number in range(2000):
        size, gain = int(rng.lognormal(11, 1.5)) + 1000, float(rng.lognormal(0, 2))
        stored = [(32, 0.0), (16, 1e-7), (8.1, 2e-5), (4.5, 1e-3), (4.25, 1.6e-3), (4.12, 2e-3)]
        noise = rng.lognormal(0, 0.3, len(stored))
        ways = tuple(
            Option(f"{bits}", int(size * bits / 8), gain * error * float(n))
            for (bits, error), n in zip(stored, noise, strict=True)
        )
        choices.append(Choice(f"l{number}", PARTS[number % 3], ways))
    whole = sum(choice.options[0].bytes for choice in choices)
    limits = [Limit(frozenset(PARTS), whole // 6)]
    allocation = allocate(choices, limits)
    check(allocation, choices, limits)
    assert allocation.gap == 0
    assert allocation.bytes > 0.9999 * limits[0].bytes


def test_tied_layers_have_the_same_precision() -> None:
    one = Choice("q", "denoiser", (Option("w4", 4, 3.0), Option("w8", 8, 1.0)))
    other = Choice("k", "denoiser", (Option("w8", 80, 2.0), Option("fp16", 160, 0.0)))
    assert tied("qk", [one, other]) == Choice("qk", "denoiser", (Option("w8", 88, 3.0),))
    with pytest.raises(ValueError, match="share no precision"):
        tied("qk", [one, Choice("k", "denoiser", (Option("fp8", 8, 1.0),))])
