from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from sdpack.errors import RefusedError
from sdpack.memory.liveness import passed_bytes
from sdpack.memory.predict import Footprint
from sdpack.pack.footprints import Footprints, graph_footprint, one_after_the_other
from sdpack.pack.mix import Variant
from sdpack.pack.shapes import Piece
from sdpack.placement import Placement, Role
from sdpack.precision import Precision
from sdpack.profile import find_profile

from tests.sdpack.graphs import convolution, linear

if TYPE_CHECKING:
    from sdpack.pack.workshop import Workshop

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


def test_inputs_and_outputs_are_counted_at_their_largest() -> None:
    weight = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)
    found = passed_bytes(convolution(weight), {"N": 2, "H": 16, "W": 4})
    assert found == 4 * 2 * (3 + 8) * 16 * 4


def test_pieces_of_a_part_are_loaded_together_and_run_in_turn() -> None:
    assert one_after_the_other([Footprint(3, 10), Footprint(4, 7)]) == Footprint(7, 10)


class Refusing:
    """A workshop whose compiler refuses everything, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.profile = find_profile("4gb-gpu")

    def pieces(self, *_: object) -> list[Piece]:
        return [Piece("model.onnx", {}, {})]

    def plan(self, *_: object) -> None:
        self.asked += 1
        raise RefusedError("not so")


def test_a_refusal_is_asked_for_once() -> None:
    workshop = Refusing()
    footprints = Footprints(cast("Workshop", workshop))
    for _ in range(3):
        with pytest.raises(RefusedError, match="not so"):
            footprints.of(Variant(Role.DENOISER, "d", Precision.W4), Placement())
    assert workshop.asked == 1
