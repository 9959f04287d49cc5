from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.precision import Precision
from sdpack.pack.variants.unsupported_layers import Hints, refused_layers

from tests.sdpack.graphs import linear

LAYERS = [f"layer {n}" for n in range(40)]


@given(st.sets(st.sampled_from(LAYERS), min_size=1, max_size=4))
def test_the_layers_that_do_not_compile_are_found(bad: set[str]) -> None:
    tried: list[Sequence[str]] = []

    def failing(groups: Sequence[Sequence[str]]) -> list[bool]:
        tried.extend(groups)
        return [bool(bad & set(group)) for group in groups]

    assert set(refused_layers(LAYERS, failing)) == bad
    assert len(tried) <= 2 * 6 * len(bad)


def test_layers_that_fail_only_together_are_all_refused() -> None:
    pair = {"layer 3", "layer 30"}

    def failing(groups: Sequence[Sequence[str]]) -> list[bool]:
        return [pair <= set(group) for group in groups]

    assert pair <= set(refused_layers(LAYERS, failing))


def test_a_hint_holds_for_its_precision_and_for_any_width() -> None:
    hints = Hints()
    small, large = (linear(np.ones((width, 64), np.float32)) for width in (64, 128))
    for node in large.graph:
        node.name = "another name"
    hints.learn(small, Precision.W4, frozenset({"linear"}))
    assert hints.guess(large, Precision.W4) == {"another name"}
    assert hints.guess(large, Precision.INT8) == frozenset()
    assert Hints().guess(large, Precision.W4) == frozenset()
