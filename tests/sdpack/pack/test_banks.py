"""Rounded weights, made together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sdpack.artifacts import Store
from sdpack.onnx_file import MODEL_FILE
from sdpack.pack.banks import Banks
from sdpack.pack.mix import Variant
from sdpack.placement import Role
from sdpack.precision import Precision, Runtime
from sdpack.quantize.observe import observe
from sdpack.quantize.schemes import UNIFORM

from tests.sdpack.graphs import linear, saved

RNG = np.random.default_rng(0)
W4, W8 = UNIFORM[Precision.W4], UNIFORM[Precision.W8]
PART = Variant(Role.DECODER, "d", Precision.W4)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Banks, list[str]]:
    """Banks of a part of one layer, for an order of fp16, int8, w8 and w4; and what they say."""
    path = saved(linear(RNG.standard_normal((64, 96)).astype(np.float32)), tmp_path / "graph")
    (tmp_path / "seen").mkdir()
    x = {"x": RNG.standard_normal((256, 64)).astype(np.float32)}
    seen = observe(path, [x], tmp_path / "seen", threads=1)
    said: list[str] = []
    precisions = (Precision.FP16, Precision.INT8, Precision.W8, Precision.W4)
    graph = SimpleNamespace(content="graph", path={MODEL_FILE: path}.__getitem__)
    sources: Any = SimpleNamespace(
        graph=lambda _: graph,
        profile=SimpleNamespace(runtime=Runtime.TENSORRT_RTX),
        order=SimpleNamespace(precisions=precisions),
        store=Store(tmp_path / "store"),
        say=said.append,
        make_room=lambda _: None,
    )
    calibration: Any = SimpleNamespace(content=lambda _: "seen", observed=lambda _: seen)
    return Banks(sources, calibration), said


def test_all_an_order_asks_for_is_rounded_in_one_pass(made: tuple[Banks, list[str]]) -> None:
    banks, said = made
    narrow, wide = banks.of(PART, W4), banks.of(PART, W8)
    assert said == [f"rounding decoder d to {W4} and {W8}: 0 %"]
    assert banks.of(PART, UNIFORM[Precision.INT8]) == wide
    assert narrow.errors["linear"] > 10 * wide.errors["linear"] > 0


def test_what_another_process_has_made_meanwhile_is_taken(
    made: tuple[Banks, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    banks, said = made
    wide = banks._make(PART, W8, (), {}).content
    monkeypatch.setattr(Banks, "_find", lambda *_: None)  # as it was when the pass began
    assert banks.of(PART, W4).errors["linear"] > 0
    assert said == [f"rounding decoder d to {W8}: 0 %", f"rounding decoder d to {W4}: 0 %"]
    assert banks._make(PART, W8, (), {}).content == wide


def test_a_pass_that_is_stopped_leaves_nothing(made: tuple[Banks, list[str]]) -> None:
    banks, said = made

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    banks.sources.say = stop
    with pytest.raises(KeyboardInterrupt):
        banks.of(PART, W4)
    assert list(banks.sources.store.artifacts()) == []
    banks.sources.say = said.append
    assert banks.of(PART, W4).is_filled
    assert banks.of(PART, W8).is_filled
