from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.quantization import sensitivity
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.observe import observe
from sdpack.quantization.probing import BATCHES, FORWARD, MOST_ROWS
from sdpack.quantization.rounding import Rounded
from sdpack.quantization.sensitivity import (
    HARM,
    SPARED,
    Shares,
    layer_gains,
    nearest_rounding_gains,
    probing_batches,
    raised,
    spread,
    uneven,
)
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import chain, linear, saved

RNG = np.random.default_rng(0)
FIRST, SECOND = (
    (RNG.standard_normal(shape) / 8).astype(np.float32) for shape in ((64, 96), (96, 48))
)


def inputs(rows: int = 32) -> dict[str, np.ndarray]:
    return {"x": RNG.standard_normal((rows, 64)).astype(np.float32)}


def noisy(error: float) -> Callable[[Layer], tuple[Rounded, float]]:
    """Weights off by noise, said to cost each layer that much of its outputs' energy."""

    def probe(layer: Layer) -> tuple[Rounded, float]:
        matrix = layer.matrix()
        noise = np.random.default_rng(1).standard_normal(matrix.shape).astype(np.float32)
        scale = np.sqrt(error * (matrix**2).mean())
        return Rounded(matrix + noise * scale, np.ones((len(matrix), 1), np.float32), 0), error

    return probe


def test_the_error_of_the_only_layer_is_that_of_the_part(tmp_path: Path) -> None:
    path = saved(linear(FIRST), tmp_path / "graph")
    for error in (1e-2, 1e-4):
        gains = layer_gains(path, noisy(error), [inputs(512)], tmp_path)
        assert gains["linear"] == pytest.approx(1, rel=0.2)


def test_an_error_nothing_comes_of_is_not_free(tmp_path: Path) -> None:
    idle = SECOND.copy()
    idle[:, :] = 0
    idle[0] = 1e-3  # of all the first layer gives out, one column is looked at
    path = saved(chain([FIRST, idle]), tmp_path / "graph")
    gains = layer_gains(path, noisy(1e-3), [inputs()], tmp_path)
    assert min(raised(gains).values()) > 0
    zero = saved(chain([FIRST, np.zeros_like(idle), SECOND.T[:48, :64].copy()]), tmp_path / "zero")
    none = layer_gains(zero, noisy(1e-3), [inputs()], tmp_path)
    assert all(gain > 0 for gain in raised(none).values())


def test_what_a_probe_leaves_out_has_no_gain(tmp_path: Path) -> None:
    path = saved(chain([FIRST, SECOND]), tmp_path / "graph")
    probe = noisy(1e-3)

    def some(layer: Layer) -> tuple[Rounded, float] | None:
        return probe(layer) if layer.name == "linear1" else None

    assert set(layer_gains(path, some, [inputs()], tmp_path)) == {"linear1"}


def test_shares_of_the_layers_have_the_gains_of_all(tmp_path: Path) -> None:
    path = saved(chain([FIRST, SECOND]), tmp_path / "graph")
    seen = [inputs()]
    every = layer_gains(path, noisy(1e-3), seen, tmp_path)
    shares = [
        layer_gains(path, noisy(1e-3), seen, tmp_path, shares=Shares((number,), 2))
        for number in range(2)
    ]
    assert [set(share) for share in shares] == [{"linear0"}, {"linear1"}]
    assert shares[0] | shares[1] == every
    none = layer_gains(path, noisy(1e-3), seen, tmp_path, shares=Shares((2,), 3))
    assert none == {}


def test_very_many_layers_are_probed_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "most_probes", lambda work: 1)
    path = saved(chain([FIRST, SECOND]), tmp_path / "graph")
    told: list[tuple[int, int]] = []

    def step(done: int, of: int) -> None:
        told.append((done, of))

    gains = layer_gains(path, noisy(1e-3), [inputs()], tmp_path, step)
    assert told == [(0, 2)]
    assert len(set(gains.values())) == 1


def test_gains_foretell_what_rounding_everything_does(tmp_path: Path) -> None:
    path = saved(chain([FIRST, SECOND]), tmp_path / "graph")
    seen = inputs(256)
    observed = observe(path, [seen], tmp_path, threads=1)
    gains = nearest_rounding_gains(path, observed, [seen], tmp_path)
    probe = noisy(1e-3)
    made = {layer.name: probe(layer) for layer in layers(read(path))}
    x = seen["x"]
    wanted = np.maximum(x @ FIRST, 0) @ SECOND
    hidden = np.maximum(x @ made["linear0"][0].values.T, 0)
    off = hidden @ made["linear1"][0].values.T - wanted
    share = float((off**2).sum() / (wanted**2).sum())
    assert sum(gains[name] * error for name, (_, error) in made.items()) == pytest.approx(
        share, rel=0.5
    )


@pytest.mark.parametrize(
    ("numbers", "batches", "rows"),
    [(1000, BATCHES, MOST_ROWS), (FORWARD // 6, BATCHES, 2), (FORWARD // 2, 2, 1), (FORWARD, 1, 1)],
)
def test_large_graphs_are_probed_on_fewer_rows(numbers: int, batches: int, rows: int) -> None:
    every = [{**inputs(), "t": np.array(n, np.float32)} for n in range(20)]
    chosen = probing_batches(every, numbers)
    assert [len(batch["x"]) for batch in chosen] == [rows] * batches
    assert all(batch["t"].ndim == 0 for batch in chosen)


def test_batches_are_spread_over_all() -> None:
    every = [{"n": np.array(n)} for n in range(9)]
    assert [int(batch["n"]) for batch in spread(every, 3)] == [0, 4, 8]
    assert [int(batch["n"]) for batch in spread(every, 1)] == [4]
    assert len(spread(every, 100)) == 9


@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), st.floats(0, 1), max_size=40))
def test_the_layers_that_are_spared_int8_inputs_are_the_worst(noise: dict[str, float]) -> None:
    spared = uneven(noise, {})
    left = [share for name, share in noise.items() if name not in spared]
    assert len(spared) <= -(-len(noise) // SPARED)
    assert sum(left) <= HARM * 1.0001 or len(spared) == -(-len(noise) // SPARED)
    if spared:
        assert min(noise[name] for name in spared) >= max(left, default=0)
        assert sum(left) + min(noise[name] for name in spared) > HARM * 0.9999


def test_noise_that_dies_out_spares_nothing() -> None:
    noise = {"early": 0.5, "late": 1e-6}
    assert uneven(noise, {"early": 1e-6, "late": 1.0}) == frozenset()
    assert uneven(noise, {"early": 1.0, "late": 1.0}) == {"early"}


def test_a_graph_whose_runs_take_long_is_probed_in_fewer_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[float] = []

    def most_probes(work: float) -> int:
        works.append(work)
        return 8

    monkeypatch.setattr(sensitivity, "most_probes", most_probes)
    path = saved(chain([FIRST, SECOND]), tmp_path / "graph")
    layer_gains(path, noisy(1e-3), [inputs(), inputs()], tmp_path)
    assert works == [2 * (FIRST.size + SECOND.size)]


@pytest.mark.parametrize(
    ("batch", "tokens"),
    [
        ({"input_ids": np.zeros((2, 77), np.int64), "mask": np.zeros((2, 77), np.int64)}, 154),
        ({"states": np.zeros((2, 512, 9)), "pooled": np.zeros((2, 4096))}, 1024),
        ({"sample": np.zeros((2, 4, 8, 8))}, 1),
    ],
)
def test_the_tokens_of_texts_are_counted(batch: dict[str, Any], tokens: int) -> None:
    assert sensitivity._tokens_of(batch) == tokens
