from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from sdpack.domain.precision import Precision, Runtime
from sdpack.engines import onnxruntime
from sdpack.engines.onnxruntime import THREADS_VARIABLE, default_threads, load
from sdpack.errors import EngineError, InputError
from sdpack.quantization.rounded_weights import rounder
from sdpack.quantization.schemes import ABILITIES, parse_scheme
from sdpack.quantization.variant import LayerQuantization, make_variant
from sdpack.rewrite.onnx_file import read, write_beside

from tests.sdpack.graphs import linear, saved


def test_a_graph_runs(tmp_path: Path) -> None:
    path = saved(linear(np.eye(4, dtype=np.float32) * 2), tmp_path)
    with load(path, threads=1) as session:
        (seen,) = session.run({"x": np.ones((3, 4), np.float32)}).values()
    assert np.array_equal(seen, np.full((3, 4), 2.0))


def test_wrong_inputs_are_explained(tmp_path: Path) -> None:
    path = saved(linear(np.eye(4, dtype=np.float32)), tmp_path)
    session = load(path, threads=1)
    for inputs in ({}, {"x": np.ones((3, 5), np.float32)}, {"x": np.ones((3, 4))}):
        with pytest.raises(EngineError, match=r"model\.onnx failed to run"):
            session.run(inputs)
    session.close()
    with pytest.raises(EngineError, match="was closed"):
        session.run({"x": np.ones((3, 4), np.float32)})


@pytest.mark.parametrize("words", ["w4", "w8"])
def test_nothing_is_rounded_that_the_graph_does_not_round(tmp_path: Path, words: str) -> None:
    rng = np.random.default_rng(0)
    whole = saved(linear(rng.standard_normal((128, 96)).astype(np.float32)), tmp_path / "whole")
    abilities = ABILITIES[Runtime.ONNXRUNTIME_CPU]
    weights = rounder(None, np.dtype(np.float32))
    quantization = LayerQuantization({"linear": parse_scheme(words)}, weights)
    narrow = make_variant(whole, quantization, Precision.FP32, abilities)
    path = saved(narrow, tmp_path / "narrow")
    x = rng.standard_normal((40, 128)).astype(np.float32)
    with load(path, threads=1) as one, load(path, threads=1, emulate=True) as two:
        seen, wanted = one.run({"x": x})["y"], two.run({"x": x})["y"]
    assert np.abs(seen - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("damage", ["missing", "cut short", "weights cut short", "no ONNX"])
def test_a_damaged_graph_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    path = saved(linear(np.random.default_rng(0).random((64, 64), np.float32)), tmp_path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:60])
    elif damage == "no ONNX":
        path.write_text("hello")
    else:
        data = path.with_name("model.onnx.data")
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(EngineError) as caught:
        load(path, threads=1)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_silent_fallback_to_the_cpu(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's ONNX Runtime has the CUDA provider")
    path = saved(linear(np.eye(4, dtype=np.float32)), tmp_path)
    with pytest.raises(EngineError, match="CUDAExecutionProvider is not available"):
        load(path, Runtime.ONNXRUNTIME_CUDA)


def test_a_gpu_s_arena_takes_what_it_is_asked_and_hands_back_first_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the provider is asked for and a run is told, on a CPU in the GPU's place."""
    import onnxruntime as ort

    asked: list[Any] = []
    told: list[Any] = []

    class Session:
        def __init__(self, path: Path, options: Any, providers: Any) -> None:
            asked.extend(providers)
            self._inner = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

        def get_outputs(self) -> Any:
            return self._inner.get_outputs()

        def run(self, names: Any, inputs: Any, options: Any) -> Any:
            entry = "memory.enable_memory_arena_shrinkage"
            told.append(None if options is None else options.get_run_config_entry(entry))
            return self._inner.run(names, inputs)

    package = SimpleNamespace(
        SessionOptions=ort.SessionOptions,
        RunOptions=ort.RunOptions,
        InferenceSession=Session,
        get_available_providers=lambda: ["CUDAExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "_package", lambda _: package)
    path = saved(linear(np.eye(4, dtype=np.float32)), tmp_path)
    for low_memory, wanted in ((False, [1, 0, 1, 1, 1]), (True, [1, 1, 1, 1, 1])):
        told.clear()
        with load(path, Runtime.ONNXRUNTIME_CUDA, low_memory=low_memory) as session:
            for rows in (3, 3, 2, 3, 2):
                session.run({"x": np.ones((rows, 4), np.float32)})
        assert told == ["gpu:0" if shrunk else None for shrunk in wanted]
        name, options = asked.pop()
        assert name == "CUDAExecutionProvider"
        assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_saving_does_not_change_the_graph(tmp_path: Path) -> None:
    model = linear(np.eye(4, dtype=np.float32))
    path = saved(model, tmp_path)
    assert [n.op_type for n in ir.load(path).graph] == [n.op_type for n in model.graph]


def test_only_large_graphs_of_plain_weights_are_not_laid_out_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.random.default_rng(0).standard_normal((128, 96)).astype(np.float32)
    whole = saved(linear(weight), tmp_path / "whole")
    write_beside(read(whole), whole.with_name("fused_attention.onnx"))
    packed = tmp_path / "packed.onnx"
    packed.write_bytes(whole.read_bytes() + b"DequantizeLinear")
    (tmp_path / "model.onnx.data").write_bytes(bytes(weight.nbytes))
    plain = onnxruntime._is_large_and_plain
    assert not plain(whole), "it is small"
    x = np.ones((3, 128), np.float32)
    with load(whole) as session:
        wanted = session.run({"x": x})["y"]
    monkeypatch.setattr(onnxruntime, "LARGE_BYTES", weight.nbytes)
    assert plain(whole)
    assert plain(whole.with_name("fused_attention.onnx")), "its weights are those of the other form"
    assert not plain(packed)
    assert not plain(tmp_path / "none.onnx")
    with load(whole) as session:
        assert np.allclose(session.run({"x": x})["y"], wanted, atol=1e-5)


def test_nobody_is_told_what_is_run(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry, which is on by default, would keep a device's name at home."""
    graph = saved(linear(np.eye(4, dtype=np.float32)), tmp_path / "graph")
    home = tmp_path / "home"
    home.mkdir()
    spared = ("CI", "ORT_", "XDG_", "GITHUB_", "TF_BUILD")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(spared)}
    code = (
        "import pathlib, sys; from sdpack.engines.onnxruntime import load; "
        "load(pathlib.Path(sys.argv[1])).close()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(graph)],
        env={**kept, "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert list(home.rglob("*")) == []


def test_the_number_of_threads_can_be_given_to_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    assert default_threads() == cores
    monkeypatch.setenv(THREADS_VARIABLE, "")
    assert default_threads() == cores
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert default_threads() == 3


@pytest.mark.parametrize("named", ["many", "0", "-1", "1.5"])
def test_a_wrong_number_of_threads_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, named)
    with pytest.raises(InputError, match=f"SDPACK_THREADS is '{named}'; give a positive"):
        default_threads()
