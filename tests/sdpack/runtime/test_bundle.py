from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sdpack.domain.placement import Loading, Role
from sdpack.domain.precision import Runtime
from sdpack.engines import onnxruntime
from sdpack.runtime import bundle as module
from sdpack.runtime.bundle import has_room

from tests.sdpack.documents.test_bundle import manifest

MIB = 2**20
CPU, GPU = Runtime.ONNXRUNTIME_CPU, Runtime.TENSORRT_RTX


@pytest.mark.parametrize(
    ("planned_for", "loading", "budget", "besides", "room"),
    [
        (CPU, Loading.RESIDENT, 100 + 2 * 20 + 32, 0, True),
        (CPU, Loading.PHASED, 100 + 2 * 20 + 31, 0, False),
        (CPU, Loading.RESIDENT, 100 + 2 * 20 + 32, 1, False),
        (GPU, Loading.RESIDENT, 3 * (10 + 20 + 30) + 512, 0, True),
        (GPU, Loading.RESIDENT, 3 * (10 + 20 + 30) + 511, 0, False),
        (GPU, Loading.PHASED, 3 * 30 + 512, 0, True),
        (GPU, Loading.PHASED, 3 * 30 + 511, 0, False),
    ],
)
def test_memory_is_kept_where_there_is_room(
    planned_for: Runtime, loading: Loading, budget: int, besides: int, room: bool
) -> None:
    made = manifest()
    weights = {role: MIB * size for role, size in zip(made.parts, (10, 30, 20), strict=True)}
    winner, *others = made.evidence.standings
    figures = {
        "budget_bytes": budget * MIB,
        "predicted_bytes": 100 * MIB,
        "activation_bytes": 20 * MIB,
        "weights": {Role.DECODER: 20 * MIB},  # what is loaded at the peak, in phases
    }
    standings = (winner.model_copy(update={"weights": weights}), *others)
    built = made.model_copy(
        update={
            "memory": made.memory.model_copy(update=figures),
            "evidence": made.evidence.model_copy(update={"standings": standings}),
            "placement": replace(made.placement, loading=loading),
            "profile": made.profile.model_copy(update={"runtime": planned_for}),
        }
    )
    assert has_room(built, CPU, besides * MIB) is room


@pytest.mark.parametrize(
    ("asked", "budget"), [(True, 10_000), (False, 1), (None, 1), (None, 10_000)]
)
def test_a_gpu_s_sessions_are_told_whether_to_be_thrifty(
    asked: bool | None, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was asked for, or else where the budget has no room."""
    made = manifest()
    figures = {"budget_bytes": budget * MIB, "predicted_bytes": 100 * MIB}
    built = made.model_copy(
        update={
            "memory": made.memory.model_copy(update={**figures, "activation_bytes": 20 * MIB}),
            "profile": made.profile.model_copy(update={"runtime": Runtime.ONNXRUNTIME_CUDA}),
        }
    )
    told: list[bool] = []

    def load(path: Path, runtime: Runtime, threads: int | None, low_memory: bool) -> None:
        assert runtime is Runtime.ONNXRUNTIME_CUDA
        told.append(low_memory)

    monkeypatch.setattr(onnxruntime, "load", load)
    monkeypatch.setattr(onnxruntime, "steady_memory", lambda: pytest.fail("of the host"))
    monkeypatch.setattr(onnxruntime, "keep_memory", lambda: pytest.fail("of the host"))
    monkeypatch.setattr(module, "PromptTokenizer", lambda *_: None)
    drawer = module.pipeline(Path("bundle"), built, low_memory=asked)
    for role in built.parts:
        drawer.loaders[role]()
    assert told == [budget == 1 if asked is None else asked] * len(built.parts)
