from __future__ import annotations

from dataclasses import replace

import pytest
from sdpack.domain.appearance import APPEARANCE_LIMITS, Appearance

FINE = Appearance(similarity=0.8, colour_offset=1.0, sharpness=1.0)


def test_a_look_within_all_limits_breaks_none() -> None:
    assert list(APPEARANCE_LIMITS.broken_by(FINE)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"similarity": 0.1}, "similarity to fp32 is 0.10"),
        ({"colour_offset": 20.0}, "colour is off by 20.0 levels"),
        ({"sharpness": 0.2}, "sharpness is 0.20 times"),
        ({"sharpness": 3.0}, "sharpness is 3.00 times"),
    ],
)
def test_each_limit_is_named_with_its_value(change: dict[str, float], said: str) -> None:
    (words,) = APPEARANCE_LIMITS.broken_by(replace(FINE, **change))
    assert said in words
