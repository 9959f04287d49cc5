from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines.onnxruntime import load
from sdpack.errors import GraphError, QuantizationError
from sdpack.quantization.layers import layers
from sdpack.quantization.observe import Observed, observe
from sdpack.quantization.rounded_weights import rounder
from sdpack.quantization.schemes import ABILITIES, UNIFORM, Abilities, parse_scheme
from sdpack.quantization.variant import (
    LayerQuantization,
    Schemes,
    make_variant,
    scale_type,
    uniform_schemes,
)
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import convolution, embedding, gemm, linear, saved, two_readers

RNG = np.random.default_rng(0)
GPU, CPU = ABILITIES[Runtime.TENSORRT_RTX], ABILITIES[Runtime.ONNXRUNTIME_CPU]
WEIGHT = RNG.standard_normal((64, 48)).astype(np.float32)
GRAPHS: dict[str, Callable[[], ir.Model]] = {
    "linear": lambda: linear(WEIGHT),
    "gemm": lambda: gemm(WEIGHT.T.copy(), RNG.random(48, np.float32)),
    "conv": lambda: convolution(RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)),
    "embedding": lambda: embedding(RNG.standard_normal((200, 64)).astype(np.float32)),
}


def inputs(kind: str) -> dict[str, np.ndarray]:
    if kind == "embedding":
        return {"x": RNG.integers(0, 200, (3, 5))}
    shape = (2, 16, 8, 8) if kind == "conv" else (16, 64)
    return {"x": RNG.standard_normal(shape).astype(np.float32)}


def observed(path: Path, seen: list[dict[str, np.ndarray]]) -> Observed:
    folder = path.parent / "observed"
    folder.mkdir()
    return observe(path, seen, folder, threads=1)


def made(
    path: Path,
    schemes: Schemes,
    computed_in: Precision,
    abilities: Abilities,
    seen: Observed | None = None,
) -> ir.Model:
    """A variant of the graph at `path`."""
    ranges = seen.ranges if seen is not None else {}
    weights = rounder(seen, scale_type(computed_in))
    quantization = LayerQuantization(schemes, weights, ranges)
    return make_variant(path, quantization, computed_in, abilities)


ALLOWED = {"w8": 0.01, "w4": 0.13, "w4:64": 0.15, "int8": 0.02, "fp8": 0.06}


@pytest.mark.parametrize("abilities", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("words", ALLOWED)
@pytest.mark.parametrize("kind", GRAPHS)
def test_what_is_made_runs_and_is_close_and_small(
    tmp_path: Path, kind: str, words: str, abilities: Abilities
) -> None:
    path, x = saved(GRAPHS[kind](), tmp_path), inputs(kind)
    precision = Precision(words.split(":")[0])
    schemes = uniform_schemes(layers(read(path)), UNIFORM.get(precision), frozenset())
    if ":" in words:
        schemes = {name: parse_scheme(words) for name in schemes if kind != "embedding"}
    model = made(path, schemes, Precision.FP32, abilities, observed(path, [x]))
    narrow = saved(model, tmp_path / "narrow")
    with load(path, threads=1) as one, load(narrow, threads=1, emulate=True) as two:
        wanted, seen = one.run(x)["y"], two.run(x)["y"]
    assert np.linalg.norm(seen - wanted) < ALLOWED[words] * np.linalg.norm(wanted)
    if schemes:
        assert not np.array_equal(seen, wanted)
        before = path.with_name("model.onnx.data").stat().st_size
        assert narrow.with_name("model.onnx.data").stat().st_size < before / 3


def test_calibrated_rounding_beats_rounding_to_nearest(tmp_path: Path) -> None:
    few = RNG.standard_normal((500, 12)) @ RNG.standard_normal((12, 64))
    x = {"x": few.astype(np.float32)}
    path = saved(linear(WEIGHT), tmp_path)
    errors = []
    for number, seen in enumerate((None, observed(path, [x]))):
        model = made(path, {"linear": parse_scheme("w4")}, Precision.FP32, CPU, seen)
        with load(saved(model, tmp_path / str(number)), threads=1) as session:
            errors.append(float(np.linalg.norm(session.run(x)["y"] - x["x"] @ WEIGHT)))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.W4, Precision.FP16])
@pytest.mark.parametrize("kind", GRAPHS)
def test_arithmetic_in_fp16(tmp_path: Path, kind: str, precision: Precision) -> None:
    path, x = saved(GRAPHS[kind](), tmp_path), inputs(kind)
    schemes = uniform_schemes(layers(read(path)), UNIFORM.get(precision), frozenset())
    model = made(path, schemes, Precision.FP16, GPU, observed(path, [x]))
    kinds = {v.dtype for v in model.graph.initializers.values()} - {ir.DataType.INT64}
    assert ir.DataType.FLOAT not in kinds
    with load(path, threads=1) as one, load(saved(model, tmp_path / "half"), threads=1) as two:
        wanted, seen = one.run(x)["y"], two.run(x)["y"]
    assert np.linalg.norm(seen - wanted) < 0.15 * np.linalg.norm(wanted)


def test_a_layer_that_is_not_named_stays_as_it_is(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    for words in ("int8", "w8", "w4"):
        found = layers(read(path))
        assert uniform_schemes(found, parse_scheme(words), frozenset(), {"linear"}) == {}
    assert [n.op_type for n in made(path, {}, Precision.FP32, GPU).graph] == ["MatMul"]


def test_layers_with_uneven_inputs_have_only_their_weights_in_int8(tmp_path: Path) -> None:
    found = layers(read(saved(linear(WEIGHT), tmp_path)))
    for words, alone in (("int8", "w8"), ("w4", "w4"), ("fp8", "fp8")):
        schemes = uniform_schemes(found, parse_scheme(words), {"linear"})
        assert schemes == {"linear": parse_scheme(alone)}
        assert uniform_schemes(found, parse_scheme(words), frozenset())["linear"] == parse_scheme(
            words
        )


def test_nodes_that_share_a_weight_or_an_input_share_its_rounding(tmp_path: Path) -> None:
    path = saved(two_readers(WEIGHT), tmp_path)
    seen = observed(path, [inputs("linear")])
    model = made(path, {"linear": parse_scheme("int8")}, Precision.FP32, CPU, seen)
    ops = [node.op_type for node in model.graph]
    assert ops.count("QuantizeLinear") == 1
    assert ops.count("DequantizeLinear") == 2
    assert saved(model, tmp_path / "narrow").is_file()


def test_rounded_inputs_need_to_have_been_observed(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    with pytest.raises(QuantizationError, match="input range of linear"):
        made(path, {"linear": parse_scheme("int8")}, Precision.FP32, CPU)


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    with pytest.raises(QuantizationError, match="has no layer lineal"):
        made(path, {"lineal": parse_scheme("w8")}, Precision.FP32, CPU)


def test_an_old_opset_is_refused_where_it_lacks_something(tmp_path: Path) -> None:
    model = linear(WEIGHT)
    model.graph.opset_imports[""] = 17
    path = saved(model, tmp_path)
    with pytest.raises(QuantizationError, match="w4:32 needs opset 21, but the graph has 17"):
        made(path, {"linear": parse_scheme("w4")}, Precision.FP32, CPU)
    narrow = made(path, {"linear": parse_scheme("w8")}, Precision.FP32, CPU)
    assert saved(narrow, tmp_path / "narrow").is_file()


def test_weights_that_are_missing_or_cut_off_are_named(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    data = path.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(GraphError, match="truncated"):
        made(path, {}, Precision.FP32, CPU)
    data.unlink()
    with pytest.raises(GraphError, match="is missing; put it back"):
        made(path, {}, Precision.FP32, CPU)
    with pytest.raises(GraphError, match="no such file"):
        made(tmp_path / "nothing.onnx", {}, Precision.FP32, CPU)
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(GraphError, match="not an ONNX graph"):
        made(tmp_path / "text.onnx", {}, Precision.FP32, CPU)


def test_the_same_graph_is_made_twice(tmp_path: Path) -> None:
    path = saved(GRAPHS["conv"](), tmp_path)
    seen = observed(path, [inputs("conv")])
    written = []
    for name in ("one", "two"):
        model = made(path, {"conv": parse_scheme("w4")}, Precision.FP16, GPU, seen)
        narrow = saved(model, tmp_path / name)
        written.append(narrow.read_bytes() + narrow.with_name("model.onnx.data").read_bytes())
    assert written[0] == written[1]
