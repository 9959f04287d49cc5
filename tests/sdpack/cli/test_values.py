from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.cli.values import PATH, STEP_COUNT, TEXT, Finite


def converted(kind: click.ParamType[Any], value: str) -> Any:
    return kind.convert(value, None, None)


@given(st.floats())
def test_only_finite_numbers_in_the_range_are_accepted(number: float) -> None:
    kind = Finite(min=0)
    if math.isfinite(number) and number >= 0:
        assert converted(kind, repr(number)) == number
    else:
        with pytest.raises(click.BadParameter):
            converted(kind, repr(number))


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_text_of_spaces_counts_as_empty(text: str) -> None:
    with pytest.raises(click.BadParameter, match="it is empty"):
        converted(TEXT, text)
    assert converted(TEXT, " a ") == " a "


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(click.BadParameter, match="it is empty"):
        converted(PATH, "")
    assert converted(PATH, ".") == Path()


def test_steps_are_those_a_schedule_can_have() -> None:
    assert converted(STEP_COUNT, "1000") == 1000
    for text in ("0", "1001", "2.5"):
        with pytest.raises(click.BadParameter):
            converted(STEP_COUNT, text)
