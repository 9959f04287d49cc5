from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sdpack.documents.sampling import MOST_STEPS, Sampling


def sampling(steps: Any) -> Sampling:
    values = {"scheduler": {"path": "scheduler"}, "steps": steps, "guidance_scale": 3.0}
    return Sampling.model_validate(values)


def test_one_number_of_steps_is_written_as_a_number() -> None:
    one = sampling(8)
    assert (one.steps, one.most_steps) == ((8,), 8)
    assert one.model_dump(mode="json")["steps"] == 8


@given(st.lists(st.integers(1, MOST_STEPS), min_size=1, max_size=9))
def test_several_numbers_of_steps_are_ascending_and_survive_writing(steps: list[int]) -> None:
    several = sampling(steps)
    assert list(several.steps) == sorted(set(steps))
    assert several.most_steps == max(steps)
    assert Sampling.model_validate(several.model_dump(mode="json")) == several


@pytest.mark.parametrize("steps", [0, -1, [], [4, 0], MOST_STEPS + 1, "many", 1.5])
def test_other_values_are_refused(steps: Any) -> None:
    with pytest.raises(ValidationError):
        sampling(steps)
