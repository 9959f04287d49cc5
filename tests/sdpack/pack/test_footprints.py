from __future__ import annotations

import numpy as np
from sdpack.pack.footprints import graph_footprint

from tests.sdpack.graphs import convolution, linear

RNG = np.random.default_rng(0)


def test_a_graph_s_weights_and_live_tensors_are_counted() -> None:
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    found = graph_footprint(linear(weight), {"x": (8, 64)})
    assert found.weight_bytes == weight.nbytes
    assert found.activation_bytes == 4 * 8 * (64 + 32)


def test_activations_follow_the_shapes_given() -> None:
    weight = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    small, large = (
        graph_footprint(convolution(weight), {"x": (1, 3, side, side)}) for side in (8, 16)
    )
    assert large.weight_bytes == small.weight_bytes
    assert large.activation_bytes == 4 * small.activation_bytes
