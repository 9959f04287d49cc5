"""Real TensorRT-RTX builds; they need neither a GPU nor CUDA."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sdpack.domain.input_range import InputRange
from sdpack.engines import tensorrt_builder
from sdpack.engines.tensorrt_builder import build, read_plan
from sdpack.errors import EngineError

from tests.sdpack.graphs import convolution, linear, saved

pytest.importorskip("tensorrt_rtx")
WEIGHT = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
RANGE = {"x": InputRange.fixed((2, 64))}


def test_a_plan_and_its_memory(tmp_path: Path) -> None:
    path = saved(linear(WEIGHT), tmp_path / "onnx")
    (tmp_path / "plan").mkdir()
    plan = build("tensorrt_rtx", path, tmp_path / "plan", RANGE, "SM86")
    assert plan.weight_bytes >= WEIGHT.nbytes
    assert plan.path.stat().st_size > 0
    assert read_plan(tmp_path / "plan") == plan


def test_activations_grow_with_the_shape(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((32, 32, 3, 3)).astype(np.float32)
    path = saved(convolution(weight), tmp_path / "onnx")
    seen = []
    for side in (64, 512):
        folder = tmp_path / str(side)
        folder.mkdir()
        shapes = {"x": InputRange.fixed((1, 32, side, side))}
        seen.append(build("tensorrt_rtx", path, folder, shapes, "SM89"))
    assert seen[1].activation_bytes > seen[0].activation_bytes
    assert seen[1].weight_bytes == seen[0].weight_bytes


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no file", "cannot parse the graph"),
        ("damaged", "cannot parse the graph"),
        ("no range", "the input x has dynamic sizes"),
        ("SM87", "does not support SM87"),
        ("no package", "No module named 'tensorrt_none'"),
    ],
)
def test_what_cannot_be_built_says_why_in_one_line(tmp_path: Path, case: str, said: str) -> None:
    path = saved(linear(WEIGHT), tmp_path)
    if case == "no file":
        path.unlink()
    elif case == "damaged":
        path.write_bytes(path.read_bytes()[:100])
    folder = tmp_path / "plan"
    folder.mkdir()
    with pytest.raises(EngineError) as caught:
        build(
            "tensorrt_none" if case == "no package" else "tensorrt_rtx",
            path,
            folder,
            {} if case == "no range" else RANGE,
            "SM87" if case == "SM87" else "SM86",
        )
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_builder_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    died = subprocess.CompletedProcess([sys.executable], -11, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(EngineError, match="ended with status -11"):
        build("tensorrt_rtx", tmp_path / "model.onnx", tmp_path, {}, "SM86")


def test_a_build_does_not_see_who_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment would move what the compiler orders by address."""
    seen = []

    def record(*_args: object, env: dict[str, str], **_kwargs: object) -> None:
        seen.append(env)
        raise subprocess.TimeoutExpired("", 0)

    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda")
    for paths in ("/usr/bin", f"/usr/bin{os.pathsep}/opt/bin"):
        for name in ("PATH", "PYTHONPATH", "HOME", "OMP_NUM_THREADS"):
            monkeypatch.setenv(name, paths)
        with pytest.raises(EngineError):
            build("tensorrt_rtx", tmp_path / "model.onnx", tmp_path, RANGE, "SM86")
    assert seen[0] == seen[1]
    assert seen[0]["LD_LIBRARY_PATH"] == "/opt/cuda"


def test_ctrl_c_that_only_the_builder_got_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died = subprocess.CompletedProcess([sys.executable], -signal.SIGINT, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: died)
    with pytest.raises(KeyboardInterrupt):
        build("tensorrt_rtx", tmp_path / "model.onnx", tmp_path, RANGE)


@pytest.mark.parametrize(("handler", "ended"), [("default_int_handler", True), ("SIG_IGN", False)])
def test_ctrl_c_ends_the_builder_at_once(handler: str, ended: bool) -> None:
    """Not when Python gets to it; and not where it is to be ignored, as under `nohup`."""
    code = f"""
import signal
from sdpack.domain.input_range import InputRange
from sdpack.engines.tensorrt_builder import _end_at_ctrl_c

signal.signal(signal.SIGINT, signal.{handler})
_end_at_ctrl_c()
print("ready", flush=True)
input()
print("done")
"""
    builder = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert builder.stdout is not None
    assert builder.stdout.readline() == "ready\n"
    builder.send_signal(signal.SIGINT)
    rest, said = builder.communicate("\n", timeout=60)
    wanted = (-signal.SIGINT, "", "") if ended else (0, "done\n", "")
    assert (builder.returncode, rest, said) == wanted


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="holds no valid plan"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"package": "tensorrt_rtx"}))
    with pytest.raises(EngineError, match="holds no valid plan"):
        read_plan(tmp_path)


@pytest.mark.parametrize(("board", "extra"), [(None, "tensorrt"), ("NVIDIA Jetson Orin Nano", "")])
def test_jetpack_brings_the_tensorrt_of_a_jetson(
    board: str | None, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_builder, "jetson_model", lambda: board)
    assert tensorrt_builder.extra_of("tensorrt") == extra
    assert tensorrt_builder.extra_of("tensorrt_rtx") == "tensorrt-rtx"
