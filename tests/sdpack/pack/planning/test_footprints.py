from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Placement, Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.errors import UnsupportedGraphError
from sdpack.memory.liveness import passed_bytes
from sdpack.memory.predict import Footprint
from sdpack.pack.planning.footprints import (
    CUDA_SESSION_BYTES,
    CUDA_TIMES_LIVE,
    Footprints,
    graph_footprint,
    one_after_the_other,
)
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants.shapes import Piece

from tests.sdpack.graphs import convolution, linear, saved

RNG = np.random.default_rng(0)


def test_a_footprint_counts_the_weights_and_live_tensors_of_a_graph() -> None:
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    footprint = graph_footprint(linear(weight), {"x": (8, 64)})
    assert footprint.weight_bytes == weight.nbytes
    assert footprint.activation_bytes == 4 * 8 * (64 + 32)


def test_activations_grow_with_the_input_shapes() -> None:
    weight = RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    small, large = (
        graph_footprint(convolution(weight), {"x": (1, 3, side, side)}) for side in (8, 16)
    )
    assert large.weight_bytes == small.weight_bytes
    assert large.activation_bytes == 4 * small.activation_bytes


def test_inputs_and_outputs_are_counted_at_their_largest() -> None:
    weight = RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)
    passed = passed_bytes(convolution(weight), {"N": 2, "H": 16, "W": 4})
    assert passed == 4 * 2 * (3 + 8) * 16 * 4


def test_pieces_of_a_part_are_loaded_together_and_run_one_at_a_time() -> None:
    assert one_after_the_other([Footprint(3, 10), Footprint(4, 7)]) == Footprint(7, 10)
    own = [Footprint(3, 10, session_bytes=2), Footprint(4, 7, session_bytes=2)]
    assert one_after_the_other(own) == Footprint(7, 10, session_bytes=4)


@pytest.mark.parametrize("runtime", [Runtime.TENSORRT, Runtime.ONNXRUNTIME_CUDA])
def test_a_graph_s_footprint_on_a_gpu_depends_on_the_runtime(
    runtime: Runtime, tmp_path: Path
) -> None:
    weight = RNG.standard_normal((64, 32)).astype(np.float32)
    path = saved(linear(weight), tmp_path)
    context: Any = SimpleNamespace(runtime=runtime)
    pieces: Any = SimpleNamespace(of=lambda *_: [Piece("model.onnx", {}, {"x": (8, 64)})])
    artifact = SimpleNamespace(path=lambda _: path)
    variants: Any = SimpleNamespace(built=lambda _: SimpleNamespace(artifact=artifact))
    tokenizers: Any = None
    variant = Variant(Role.TEXT_ENCODER, "e", Precision.FP16)
    footprint = Footprints(context, variants, pieces, tokenizers).of(variant, Placement())
    live = 4 * 8 * (64 + 32)
    assert footprint == (
        Footprint(weight.nbytes, live)
        if runtime is Runtime.TENSORRT
        else Footprint(weight.nbytes, CUDA_TIMES_LIVE * live, session_bytes=CUDA_SESSION_BYTES)
    )


class RejectedPieces:
    """Pieces whose compiler rejects everything and counts how often it runs."""

    def __init__(self) -> None:
        self.compiled = 0

    def of(self, *_: object) -> list[Piece]:
        return [Piece("model.onnx", {}, {})]

    def plan(self, *_: object) -> None:
        self.compiled += 1
        raise UnsupportedGraphError("not so")


def test_a_rejected_variant_is_compiled_once() -> None:
    pieces = RejectedPieces()
    context: Any = SimpleNamespace(runtime=find_profile("4gb-gpu").runtime)
    unused: Any = None
    footprints = Footprints(context, unused, cast(Any, pieces), unused)
    for _ in range(3):
        with pytest.raises(UnsupportedGraphError, match="not so"):
            footprints.of(Variant(Role.DENOISER, "d", Precision.W4), Placement())
    assert pieces.compiled == 1
