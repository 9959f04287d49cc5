from __future__ import annotations

import pytest
from sdpack.precision import Runtime
from sdpack.runtime.bundle import has_room

from tests.sdpack.test_bundle import manifest

MIB = 2**20
CPU, GPU = Runtime.ONNXRUNTIME_CPU, Runtime.TENSORRT_RTX


@pytest.mark.parametrize(
    ("planned_for", "budget", "besides", "room"),
    [
        (CPU, 100 + 2 * 20 + 32, 0, True),
        (CPU, 100 + 2 * 20 + 31, 0, False),
        (CPU, 100 + 2 * 20 + 32, 1, False),
        (GPU, 3 * 30 + 512, 0, True),
        (GPU, 3 * 30 + 511, 0, False),
    ],
)
def test_memory_is_kept_where_there_is_room(
    planned_for: Runtime, budget: int, besides: int, room: bool
) -> None:
    made = manifest()
    weights = dict.fromkeys(made.parts, 10 * MIB)
    assert len(weights) == 3
    figures = {
        "budget_bytes": budget * MIB,
        "predicted_bytes": 100 * MIB,
        "activation_bytes": 20 * MIB,
        "weights": weights,
    }
    built = made.model_copy(
        update={
            "memory": made.memory.model_copy(update=figures),
            "profile": made.profile.model_copy(update={"runtime": planned_for}),
        }
    )
    assert has_room(built, CPU, besides * MIB) is room
