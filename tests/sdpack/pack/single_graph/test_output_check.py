from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from sdpack.domain.precision import Precision, Runtime
from sdpack.errors import QuantizationError
from sdpack.pack.single_graph import output_check as module
from sdpack.pack.single_graph.output_check import WrittenGraph, check_finite
from sdpack.quantization.half import to_half
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import convolution, linear, saved

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((64, 48)).astype(np.float32)
X = RNG.standard_normal((8, 64)).astype(np.float32)


def written(
    path: Path, source: Path, runtime: str = "tensorrt-rtx", words: str = "fp16"
) -> WrittenGraph:
    return WrittenGraph(path, source, words, Precision(words), Runtime(runtime))


def mistyped(folder: Path) -> Path:
    """A graph that declares an fp16 output but computes fp32; ONNX's checker accepts it."""
    path = saved(linear(WEIGHT), folder)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, path)
    return path


def test_the_error_for_a_graph_that_cannot_be_loaded_hides_its_temporary_path(
    tmp_path: Path,
) -> None:
    source, new = saved(linear(WEIGHT), tmp_path / "whole"), mistyped(tmp_path / "new")
    with pytest.raises(
        QuantizationError, match="as fp16 makes a graph that ONNX Runtime"
    ) as caught:
        written(new, source).check_runs()
    assert str(new) not in str(caught.value)
    assert str(source) in str(caught.value)


def test_a_graph_that_does_not_run_where_its_source_does_is_refused(tmp_path: Path) -> None:
    source = saved(linear(WEIGHT), tmp_path / "whole")
    # Its rows have 40 numbers, not 64.
    new = saved(linear(WEIGHT[:40].copy()), tmp_path / "new")
    with pytest.raises(QuantizationError, match=r"rejects: model\.onnx failed to run"):
        written(new, source).check_runs()


def test_a_graph_whose_source_rejects_random_inputs_is_only_loaded(tmp_path: Path) -> None:
    """The source reshapes its rows to three, which fails for the guessed length of N."""
    model = linear(WEIGHT)
    (last,) = model.graph
    shape = ir.Value(name="shape", const_value=ir.tensor(np.array([3, 48])))
    model.graph.register_initializer(shape)
    three = ir.node("Reshape", [last.outputs[0], shape], name="three")
    three.outputs[0].name, three.outputs[0].dtype = "z", ir.DataType.FLOAT
    three.outputs[0].shape = ir.Shape([3, 48])
    model.graph.append(three)
    model.graph.outputs[0] = three.outputs[0]
    source = saved(model, tmp_path)
    written(source, source).check_runs()


def test_bf16_convolutions_of_an_older_opset_are_refused_for_onnx_runtime(
    tmp_path: Path,
) -> None:
    """Conv supports bf16 from opset 22 on; TensorRT supports it in any opset."""
    kernel = RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)
    source = saved(convolution(kernel), tmp_path / "whole")
    model = read(source)
    to_half(model, dtype=ir.DataType.BFLOAT16)
    new = saved(model, tmp_path / "new")
    written(new, source, "tensorrt-rtx", "bf16").check_runs()
    with pytest.raises(QuantizationError, match=r"opset_version=22, or choose --precision fp16"):
        written(new, source, "onnxruntime-cuda", "bf16").check_runs()
    model.graph.opset_imports[""] = 22
    new = saved(model, tmp_path / "newer")
    written(new, source, "onnxruntime-cuda", "bf16").check_runs()


def test_errors_are_relative_to_the_energy_of_the_output(tmp_path: Path) -> None:
    source = saved(linear(WEIGHT), tmp_path / "whole")
    new = saved(linear(WEIGHT * np.float32(1.1)), tmp_path / "new")
    errors = written(new, source, words="fp32").errors({"y": [X @ WEIGHT]}, [{"x": X}])
    assert errors["y"] == pytest.approx(0.1**2, rel=1e-3)


def test_broken_outputs_of_the_source_are_named_and_counted() -> None:
    outputs = {"y": [np.array([1.0, np.nan]), np.array([np.inf, np.nan])]}
    with pytest.raises(
        QuantizationError, match=r"the output y .* \(2 NaN and 1 infinite number of 4"
    ):
        check_finite(Path("unet.onnx"), outputs)


def gpu_only(weight: np.ndarray, folder: Path) -> Path:
    """A graph with an operator that no CPU has."""
    path = saved(linear(weight), folder)
    model = onnx.load(path)
    model.graph.node[-1].domain, model.graph.node[-1].op_type = "trt.plugins", "Special"
    model.opset_import.append(onnx.helper.make_opsetid("trt.plugins", 1))
    onnx.save(model, path)
    return path


def test_a_graph_is_not_blamed_if_a_cpu_cannot_load_its_source_either(tmp_path: Path) -> None:
    source = gpu_only(WEIGHT, tmp_path / "whole")
    new = gpu_only(WEIGHT, tmp_path / "new")
    assert "does not load" in written(new, source).check_runs()


def test_a_graph_that_exceeds_memory_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, new = saved(linear(WEIGHT), tmp_path / "whole"), mistyped(tmp_path / "new")
    monkeypatch.setattr(module, "memory_bytes", lambda: WEIGHT.nbytes)
    assert "memory" in written(new, source).check_runs()
