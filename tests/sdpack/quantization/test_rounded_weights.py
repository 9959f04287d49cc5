from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sdpack.quantization.input_statistics import rows_of
from sdpack.quantization.layers import layers
from sdpack.quantization.observe import observe
from sdpack.quantization.rounded_weights import RoundedWeights, fill, rounder, sampled_errors
from sdpack.quantization.schemes import parse_scheme

from tests.sdpack.graphs import convolution, embedding, linear, saved

RNG = np.random.default_rng(0)
FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize("words", ["w4:16", "w8", "fp8"])
def test_what_is_put_in_comes_out(tmp_path: Path, words: str) -> None:
    model = convolution(RNG.standard_normal((24, 16, 3, 3)).astype(np.float32))
    path = saved(model, tmp_path / "graph")
    x = {"x": RNG.standard_normal((2, 16, 8, 8)).astype(np.float32)}
    seen = observe(path, [x], tmp_path, threads=1)
    (layer,), scheme = layers(model), parse_scheme(words)
    fill({tmp_path: [(layer, scheme)]}, seen, FLOAT)
    wanted = rounder(seen, FLOAT)(layer, scheme)
    found = RoundedWeights((tmp_path,)).rounded("conv")
    assert np.array_equal(found.values, wanted.values)
    assert found.block == wanted.block
    rows = rows_of(layer.nodes[0], x["x"])
    assert rows is not None
    off, whole = rows @ (found.values - layer.matrix()).T, rows @ layer.matrix().T
    share = (off**2).sum() / (whole**2).sum()
    assert RoundedWeights((tmp_path,)).errors["conv"] == pytest.approx(share, rel=0.01)


def test_a_tables_error_is_that_of_its_rows(tmp_path: Path) -> None:
    (layer,) = layers(embedding(RNG.standard_normal((100, 32)).astype(np.float32)))
    fill({tmp_path: [(layer, parse_scheme("w4:16"))]}, None, FLOAT)
    off = RoundedWeights((tmp_path,)).rounded("embedding").values - layer.matrix()
    share = (off**2).sum() / (layer.matrix() ** 2).sum()
    assert RoundedWeights((tmp_path,)).errors["embedding"] == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("words", ["w4", "w4:64", "w8"])
def test_a_few_rows_tell_the_error_of_all(tmp_path: Path, words: str) -> None:
    weight = RNG.standard_normal((64, 512)).astype(np.float32)
    path = saved(linear(weight), tmp_path / "graph")
    mixing = RNG.standard_normal((64, 64))
    x = {"x": (RNG.standard_normal((1024, 64)) @ mixing).astype(np.float32)}
    seen = observe(path, [x], tmp_path, threads=1)
    (layer,), scheme = layers(linear(weight)), parse_scheme(words)
    fill({tmp_path: [(layer, scheme)]}, seen, FLOAT)
    sampled = sampled_errors(layer, [scheme], seen, FLOAT)
    assert sampled[scheme] == pytest.approx(RoundedWeights((tmp_path,)).errors["linear"], rel=0.15)


def test_schemes_rounded_together_come_out_as_alone(tmp_path: Path) -> None:
    weight = RNG.standard_normal((64, 96)).astype(np.float32)
    path = saved(linear(weight), tmp_path / "graph")
    x = {"x": RNG.standard_normal((256, 64)).astype(np.float32)}
    seen = observe(path, [x], tmp_path, threads=1)
    (layer,), schemes = layers(linear(weight)), [parse_scheme(w) for w in ("w4:16", "w8")]
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    fill(dict(zip(folders, ([(layer, s)] for s in schemes), strict=False)), seen, FLOAT)
    for together, alone, scheme in zip(folders, folders[2:], schemes, strict=False):
        fill({alone: [(layer, scheme)]}, seen, FLOAT)
        one, other = (RoundedWeights((folder,)).rounded("linear") for folder in (together, alone))
        assert np.array_equal(one.values, other.values)
        assert RoundedWeights((together,)).errors == RoundedWeights((alone,)).errors
