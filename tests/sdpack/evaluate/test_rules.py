from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.evaluate.rules import Arm, Preference, Rules

ARMS = st.builds(Arm, st.text(max_size=3), st.tuples(st.integers(0, 3), st.integers(0, 3)))


@given(st.lists(ARMS, min_size=1))
def test_the_first_differing_cost_decides_and_then_the_name(arms: list[Arm]) -> None:
    first = min(arms, key=lambda arm: arm.key)
    least = min(arm.cost[0] for arm in arms)
    tied = [arm for arm in arms if arm.cost[0] == least]
    least = min(arm.cost[1] for arm in tied)
    names = [arm.name for arm in tied if arm.cost[1] == least]
    assert first.name == min(names)


@pytest.mark.parametrize(
    ("fewest", "most", "enough"), [(32, 384, 32), (32, 16, 16), (1, 384, 2), (32, 1, 2)]
)
def test_at_least_two_prompts_are_needed_to_show_equality(
    fewest: int, most: int, enough: int
) -> None:
    assert Rules(fewest=fewest, most=most).enough == enough


def test_only_speed_and_memory_accept_an_open_comparison() -> None:
    assert [p for p in Preference if p.takes_open] == [Preference.SPEED, Preference.MEMORY]


def test_prompts_come_again_only_if_more_noises_are_allowed() -> None:
    plain = Rules(most=100).with_prompts(40)
    assert (plain.most, plain.prompts, plain.repeats) == (40, 40, False)
    again = Rules(most=100, noises=8).with_prompts(40)
    assert (again.most, again.repeats) == (100, True)
    assert again.looks.prompts == 40
    assert Rules(most=100, noises=2).with_prompts(40).most == 80
    assert not Rules(most=30, noises=8).with_prompts(40).repeats
