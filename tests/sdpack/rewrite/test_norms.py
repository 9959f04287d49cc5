"""Group normalization with given statistics beside the operator it stands for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from sdpack.engines.onnxruntime import load
from sdpack.rewrite.norms import share_statistics

GROUPS, CHANNELS, MEAN = 4, 8, 40.0
RNG = np.random.default_rng(0)


def normalizing(kind: int = onnx.TensorProto.FLOAT) -> onnx.ModelProto:
    """y = GroupNormalization(x) in a type; weights and biases are none of them one or zero."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    weights = {name: RNG.standard_normal(CHANNELS).astype(dtype) for name in ("weight", "bias")}
    names = ["x", "weight", "bias"]
    sizes: list[int | str] = ["batch", CHANNELS, "rows", "columns"]
    graph = make_graph(
        [make_node("GroupNormalization", names, ["y"], num_groups=GROUPS, epsilon=1e-6)],
        "normalizing",
        [make_tensor_value_info("x", kind, sizes)],
        [make_tensor_value_info("y", kind, sizes)],
        [from_array(values, name) for name, values in weights.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 21)], ir_version=10)


def shared(model: onnx.ModelProto, path: Path) -> Path:
    changed = ir.from_proto(model)
    (norm,) = changed.graph
    share_statistics(changed, [norm], [1])
    ir.save(changed, path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def run(
    path: Path, x: np.ndarray, given: np.ndarray | None, core: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """y and what was found, of x normalized with what is given, or else like the core."""
    nothing = np.zeros((len(x), 1, 2, GROUPS), np.float32)
    inputs = {
        "x": x,
        "core": np.ones((1, 1, *x.shape[2:]), np.float32) if core is None else core,
        "given": nothing if given is None else given,
        "shared": np.array([0 if given is None else 1], np.float32),
    }
    with load(path) as session:
        found = session.run(inputs)
    return found["y"], found["found"]


def picture(dtype: type = np.float32) -> np.ndarray:
    """Two pictures, far from zero."""
    return (RNG.standard_normal((2, CHANNELS, 6, 10)) + MEAN).astype(dtype)


def test_alone_it_is_the_operator(tmp_path: Path) -> None:
    model, x = normalizing(), picture() - np.float32(MEAN)
    onnx.save(model, tmp_path / "plain.onnx")
    with load(tmp_path / "plain.onnx") as session:
        wanted = session.run({"x": x})["y"]
    y, found = run(shared(model, tmp_path / "shared.onnx"), x, None)
    assert np.abs(y - wanted).max() < 1e-5
    apart = x.reshape(2, GROUPS, -1)
    assert found[:, 0, 0] == pytest.approx(apart.mean(-1), abs=1e-5)
    assert found[:, 0, 1] == pytest.approx(apart.var(-1), abs=1e-5)


def test_far_from_zero_the_second_look_is_exact(tmp_path: Path) -> None:
    x, path = picture(), shared(normalizing(), tmp_path / "shared.onnx")
    exact = x.astype(np.float64).reshape(2, GROUPS, -1).var(-1)
    _, rough = run(path, x, None)
    _, found = run(path, x, rough)
    assert np.abs(rough[:, 0, 1] - exact).max() < 5e-3
    assert np.abs(found[:, 0, 1] - exact).max() < 1e-5


def test_statistics_are_of_the_core_alone(tmp_path: Path) -> None:
    x = picture()
    core = np.zeros((1, 1, 6, 10), np.float32)
    core[..., 1:4, 2:9] = 1
    path = shared(normalizing(), tmp_path / "shared.onnx")
    y, found = run(path, x, None, core)
    inside = x[..., 1:4, 2:9].reshape(2, GROUPS, -1)
    assert found[:, 0, 0] == pytest.approx(inside.mean(-1), abs=1e-4)
    again, found_again = run(path, x, found, core)
    assert np.abs(again - y).max() < 1e-3
    assert found_again == pytest.approx(found, abs=1e-3)


def test_what_is_given_is_what_counts(tmp_path: Path) -> None:
    x, path = picture(), shared(normalizing(), tmp_path / "shared.onnx")
    y, found = run(path, x, None)
    moved = found + np.array([1, 0], np.float32)[:, None]
    shifted, seen = run(path, x, moved)
    assert np.abs(shifted - y).max() > 0.1
    assert seen == pytest.approx(found, abs=1e-3), "what is found does not depend on it"


def test_in_fp16_a_mean_between_two_numbers_stands_still(tmp_path: Path) -> None:
    """fp16 has 32 numbers to one around 40; a mean is none of them."""
    x = picture(np.float16)
    path = shared(normalizing(onnx.TensorProto.FLOAT16), tmp_path / "shared.onnx")
    exact = x.astype(np.float32).reshape(2, GROUPS, -1)
    alone, found = run(path, x, None)
    for _ in range(4):
        y, found = run(path, x, found)
        assert np.abs(found[:, 0, 0] - exact.mean(-1)).max() < 1e-3
        assert np.abs(y.astype(np.float32) - alone).max() < 0.01
