"""Rounded weights of several schemes, made in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
from sdpack.quantization.quantizable_graph import Fp32Graph
from sdpack.quantization.schemes import ABILITIES, UNIFORM
from sdpack.store.artifacts import Store

from tests.sdpack.graphs import chain, linear, saved

RNG = np.random.default_rng(0)
W4, W8 = UNIFORM[Precision.W4], UNIFORM[Precision.W8]
PART = Variant(Role.DECODER, "d", Precision.W4)


@dataclass
class CacheUnderTest:
    """A cache for a request of fp16, int8, w8 and w4, and the lines of its progress."""

    cache: RoundedWeightCache
    store: Store
    lines: list[str] = field(default_factory=list)
    on_line: Callable[[str], None] = lambda _: None

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)


def cache_for(tmp_path: Path, model: ir.Model) -> CacheUnderTest:
    path = saved(model, tmp_path / "graph")
    (tmp_path / "seen").mkdir()
    x = {"x": RNG.standard_normal((256, 64)).astype(np.float32)}
    observed = observe(path, [x], tmp_path / "seen", threads=1)
    graph = SimpleNamespace(graph=Fp32Graph(path, "graph", "decoder d", path))
    calibration: Any = SimpleNamespace(
        of=lambda _: graph, content=lambda _: "seen", observed=lambda _: observed
    )
    made: list[CacheUnderTest] = []
    runtime, store = Runtime.TENSORRT_RTX, Store(tmp_path / "store")
    precisions = (Precision.FP16, Precision.INT8, Precision.W8, Precision.W4)
    context: Any = SimpleNamespace(
        precisions=precisions,
        runtime=runtime,
        abilities=ABILITIES[runtime],
        store=store,
        say=lambda line: made[0].say(line),
    )
    made.append(CacheUnderTest(RoundedWeightCache(context, calibration), store))
    return made[0]


@pytest.fixture
def under_test(tmp_path: Path) -> CacheUnderTest:
    """A cache for a part with one layer."""
    return cache_for(tmp_path, linear(RNG.standard_normal((64, 96)).astype(np.float32)))


def test_all_schemes_of_a_request_are_rounded_in_one_pass(under_test: CacheUnderTest) -> None:
    narrow, wide = under_test.cache.of(PART, W4), under_test.cache.of(PART, W8)
    assert under_test.lines == [f"rounding decoder d to {W4} and {W8}: 0 %"]
    assert under_test.cache.of(PART, UNIFORM[Precision.INT8]) == wide
    assert narrow.errors["linear"] > 10 * wide.errors["linear"] > 0


def test_weights_that_another_process_rounded_meanwhile_are_used(
    under_test: CacheUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chunk,) = under_test.cache._chunks(PART)
    other = under_test.cache._rounded(PART, chunk, W8)
    under_test.lines.clear()
    find, lookups = Store.find, []

    def find_none_at_first(store: Store, kind: str, inputs: Any) -> Any:
        """Finds nothing in the first two lookups, before this process holds the lock."""
        lookups.append(kind)
        return None if len(lookups) <= 2 else find(store, kind, inputs)

    monkeypatch.setattr(Store, "find", find_none_at_first)
    assert under_test.cache.of(PART, W4).errors == under_test.cache.of(PART, W4).errors
    assert under_test.lines == []
    assert under_test.cache.of(PART, W8).folders == (other.folder,)


def test_an_interrupted_pass_leaves_nothing_unfinished(under_test: CacheUnderTest) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    under_test.on_line = stop
    with pytest.raises(KeyboardInterrupt):
        under_test.cache.of(PART, W4)
    assert list(under_test.store.artifacts()) == []
    under_test.on_line = lambda _: None
    assert under_test.cache.of(PART, W4).is_filled
    assert under_test.cache.of(PART, W8).is_filled


def test_an_interrupted_pass_resumes_at_its_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = [RNG.standard_normal(shape).astype(np.float32) for shape in ((64, 96), (96, 32))]
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 64 * 96)
    under_test = cache_for(tmp_path, chain(weights))

    def stop_at_half(line: str) -> None:
        if line.endswith("50 %"):
            raise KeyboardInterrupt

    under_test.on_line = stop_at_half
    with pytest.raises(KeyboardInterrupt):
        under_test.cache.of(PART, W4)
    first = f"rounding decoder d to {W4} and {W8}: "
    assert under_test.lines == [first + "0 %", first + "50 %"]
    under_test.on_line = lambda _: None
    narrow = under_test.cache.of(PART, W4)
    assert under_test.lines == [first + "0 %", first + "50 %", first + "50 %"]
    assert len(narrow.folders) == 2
    assert under_test.cache._layers is None
    monkeypatch.setattr(Fp32Graph, "layers", lambda _: pytest.fail("everything is in the store"))
    assert under_test.cache.of(PART, W4) == narrow
    assert len(under_test.cache.of(PART, W8).folders) == 2
    assert list(narrow.errors) == ["linear0", "linear1"]
    for number, weight in enumerate(weights):
        off = narrow.rounded(f"linear{number}").values - weight.T
        assert 0 < np.abs(off).max() < 1


def test_a_scheme_in_the_store_is_not_rounded_again_with_another(
    under_test: CacheUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed between two schemes leaves one of them."""
    monkeypatch.setattr(RoundedWeightCache, "_uniform_schemes", lambda *_: set())
    under_test.cache.of(PART, W8)
    monkeypatch.undo()
    assert under_test.cache.of(PART, W4).is_filled
    assert under_test.lines == [
        f"rounding decoder d to {W8}: 0 %",
        f"rounding decoder d to {W4}: 0 %",
    ]


def test_a_graph_without_layers_has_no_rounded_weights(tmp_path: Path) -> None:
    under_test = cache_for(tmp_path, linear(np.ones((64, 1), np.float32)))
    assert under_test.cache.of(PART, W4).errors == {}
    assert under_test.lines == []


@given(st.lists(st.integers(1, 100)), st.integers(1, 200))
def test_chunks_hold_every_layer_in_order_and_are_full(sizes: list[int], most: int) -> None:
    layers: Any = [SimpleNamespace(name=str(n), size=size) for n, size in enumerate(sizes)]
    chunks = chunked(layers, most)
    assert [name for chunk in chunks for name in chunk] == [layer.name for layer in layers]
    chunk_sizes = [[sizes[int(name)] for name in chunk] for chunk in chunks]
    assert all(sum(chunk) <= most or len(chunk) == 1 for chunk in chunk_sizes)
    assert all(sum(one) + other[0] > most for one, other in pairwise(chunk_sizes))
