"""Rounded weights, made together."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision, Runtime
from sdpack.pack.planning.mix import Variant
from sdpack.pack.variants import rounded_weight_cache as module
from sdpack.pack.variants.rounded_weight_cache import RoundedWeightCache, chunked
from sdpack.quantization.observe import observe
from sdpack.quantization.schemes import UNIFORM
from sdpack.rewrite.onnx_file import MODEL_FILE
from sdpack.store.artifacts import Store

from tests.sdpack.graphs import chain, linear, saved

RNG = np.random.default_rng(0)
W4, W8 = UNIFORM[Precision.W4], UNIFORM[Precision.W8]
PART = Variant(Role.DECODER, "d", Precision.W4)


def banks_of(tmp_path: Path, model: ir.Model) -> tuple[RoundedWeightCache, list[str]]:
    """RoundedWeightCache of a part, for an order of fp16, int8, w8 and w4; and what they say."""
    path = saved(model, tmp_path / "graph")
    (tmp_path / "seen").mkdir()
    x = {"x": RNG.standard_normal((256, 64)).astype(np.float32)}
    seen = observe(path, [x], tmp_path / "seen", threads=1)
    said: list[str] = []
    precisions = (Precision.FP16, Precision.INT8, Precision.W8, Precision.W4)
    graph = SimpleNamespace(content="graph", path={MODEL_FILE: path}.__getitem__)
    sources: Any = SimpleNamespace(
        graph=lambda _: graph,
        profile=SimpleNamespace(runtime=Runtime.TENSORRT_RTX),
        request=SimpleNamespace(precisions=precisions),
        store=Store(tmp_path / "store"),
        say=said.append,
        make_room=lambda _: None,
    )
    calibration: Any = SimpleNamespace(content=lambda _: "seen", observed=lambda _: seen)
    return RoundedWeightCache(sources, calibration), said


@pytest.fixture
def made(tmp_path: Path) -> tuple[RoundedWeightCache, list[str]]:
    """Those of a part of one layer."""
    return banks_of(tmp_path, linear(RNG.standard_normal((64, 96)).astype(np.float32)))


def test_all_an_order_asks_for_is_rounded_in_one_pass(
    made: tuple[RoundedWeightCache, list[str]],
) -> None:
    weight_cache, said = made
    narrow, wide = weight_cache.of(PART, W4), weight_cache.of(PART, W8)
    assert said == [f"rounding decoder d to {W4} and {W8}: 0 %"]
    assert weight_cache.of(PART, UNIFORM[Precision.INT8]) == wide
    assert narrow.errors["linear"] > 10 * wide.errors["linear"] > 0


def test_what_another_process_has_made_meanwhile_is_taken(
    made: tuple[RoundedWeightCache, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight_cache, said = made
    (chunk,) = weight_cache._chunks(PART)
    wide = weight_cache._make(PART, chunk, W8, (), {}).content
    monkeypatch.setattr(
        RoundedWeightCache, "_find", lambda *_: None
    )  # as it was when the pass began
    assert weight_cache.of(PART, W4).errors["linear"] > 0
    assert said == [f"rounding decoder d to {W8}: 0 %", f"rounding decoder d to {W4}: 0 %"]
    assert weight_cache._make(PART, chunk, W8, (), {}).content == wide


def test_a_pass_that_is_stopped_leaves_no_half_of_a_shelf(
    made: tuple[RoundedWeightCache, list[str]],
) -> None:
    weight_cache, said = made

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    weight_cache.sources.say = stop
    with pytest.raises(KeyboardInterrupt):
        weight_cache.of(PART, W4)
    assert list(weight_cache.sources.store.artifacts()) == []
    weight_cache.sources.say = said.append
    assert weight_cache.of(PART, W4).is_filled
    assert weight_cache.of(PART, W8).is_filled


def test_a_pass_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [RNG.standard_normal(shape).astype(np.float32) for shape in ((64, 96), (96, 32))]
    monkeypatch.setattr(module, "SHELF", 64 * 96)
    weight_cache, said = banks_of(tmp_path, chain(weights))

    def stop_at_half(words: str) -> None:
        said.append(words)
        if words.endswith("50 %"):
            raise KeyboardInterrupt

    weight_cache.sources.say = stop_at_half
    with pytest.raises(KeyboardInterrupt):
        weight_cache.of(PART, W4)
    first = f"rounding decoder d to {W4} and {W8}: "
    assert said == [first + "0 %", first + "50 %"]
    weight_cache.sources.say = said.append
    narrow = weight_cache.of(PART, W4)
    assert said == [first + "0 %", first + "50 %", first + "50 %"]
    assert len(narrow.folders) == 2
    assert weight_cache._read is None
    monkeypatch.setattr(module, "read", lambda _: pytest.fail("all of it is kept"))
    assert weight_cache.of(PART, W4) == narrow
    assert len(weight_cache.of(PART, W8).folders) == 2
    assert list(narrow.errors) == ["linear0", "linear1"]
    for number, weight in enumerate(weights):
        off = narrow.rounded(f"linear{number}").values - weight.T
        assert 0 < np.abs(off).max() < 1


def test_a_scheme_that_is_kept_is_not_rounded_again_with_another(
    made: tuple[RoundedWeightCache, list[str]],
) -> None:
    """As a process leaves them that is killed between the two."""
    weight_cache, said = made
    (chunk,) = weight_cache._chunks(PART)
    weight_cache._make(PART, chunk, W8, (), {})
    assert weight_cache.of(PART, W4).is_filled
    assert said == [f"rounding decoder d to {W8}: 0 %", f"rounding decoder d to {W4}: 0 %"]


def test_a_graph_without_layers_has_an_empty_bank(tmp_path: Path) -> None:
    weight_cache, said = banks_of(tmp_path, linear(np.ones((64, 1), np.float32)))
    assert weight_cache.of(PART, W4).errors == {}
    assert said == []


@given(st.lists(st.integers(1, 100)), st.integers(1, 200))
def test_shelves_hold_every_layer_in_order_and_are_full(sizes: list[int], most: int) -> None:
    found: Any = [SimpleNamespace(name=str(n), size=size) for n, size in enumerate(sizes)]
    runs = chunked(found, most)
    assert [name for run in runs for name in run] == [layer.name for layer in found]
    held = [[sizes[int(name)] for name in run] for run in runs]
    assert all(sum(run) <= most or len(run) == 1 for run in held)
    assert all(sum(one) + other[0] > most for one, other in pairwise(held))
