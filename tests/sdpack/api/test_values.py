from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.api.values import (
    as_choice,
    as_count,
    as_list,
    as_path,
    as_scale,
    as_size,
    as_text,
)
from sdpack.domain.precision import Runtime
from sdpack.errors import InputError, PromptError

ANYTHING: Any = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@given(ANYTHING, st.integers(0, 3), st.none() | st.integers(4, 9))
def test_a_count_is_a_whole_number_in_its_range(value: Any, least: int, most: int | None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and value >= least and (most is None or value <= most):
        assert as_count(value, "n", least, most) == value
    else:
        with pytest.raises(InputError, match=r"n is .*; give a whole number"):
            as_count(value, "n", least, most)


@given(ANYTHING)
def test_a_scale_is_finite_and_not_negative(value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and math.isfinite(value) and value >= 0:
        assert as_scale(value, "s") == value
    else:
        with pytest.raises(InputError, match=r"s is .*; give a finite number"):
            as_scale(value, "s")


def test_numpy_numbers_are_accepted() -> None:
    integer, number = np.int64(3), np.float32(0.5)
    assert as_count(int(integer), "n") == 3
    value: Any = integer
    assert as_count(value, "n") == 3
    assert as_scale(float(number), "s") == 0.5


@given(st.integers(1, 99), st.integers(1, 99))
def test_width_and_height_become_height_and_width(width: int, height: int) -> None:
    assert as_size((width, height), "size") == (height, width)


@pytest.mark.parametrize("value", [512, "512", (512,), (1, 2, 3), (0, 512), ("a", "b"), None])
def test_an_invalid_size_raises_the_requested_error(value: Any) -> None:
    with pytest.raises(PromptError, match="size"):
        as_size(value, "size", refusal=PromptError)


def test_a_single_value_stands_for_a_list_of_it() -> None:
    assert as_list("a", "x", single=(str,)) == ["a"]
    assert as_list(("a", "b"), "x", single=(str,)) == ["a", "b"]
    for value in ("a", 5):
        with pytest.raises(InputError, match=r"x is .*; give a list"):
            as_list(value, "x")


@pytest.mark.parametrize("value", ["", " ", None, 5, b"bytes"])
def test_a_text_or_a_path_is_not_empty(value: Any) -> None:
    with pytest.raises(InputError, match="give a text or a path that is not empty"):
        as_text(value, "out")
    assert as_path(Path("a"), "out") == as_path("a", "out") == Path("a")


def test_a_choice_is_one_of_those_named() -> None:
    assert as_choice(Runtime, "tensorrt", "runtime") is Runtime.TENSORRT
    with pytest.raises(InputError, match="runtime is 'cpu'; choose one of tensorrt-rtx, tensorrt"):
        as_choice(Runtime, "cpu", "runtime")
