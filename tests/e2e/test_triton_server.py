"""A model repository in a real Triton server, from the wheel that brings one for Linux on x86-64.

That server has the Python backend alone, so that ONNX Runtime is put behind it here. All else is as
on a device: how it reads the configs, batches, and lets one model call another.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from sdpack.cli.main import main
from sdpack.documents.bundle import open_bundle
from sdpack.runtime.bundle import pipeline, request
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

PROMPTS = ["noto, pizza", "twemoji, red heart"]
START_LIMIT_S = 120
NUMPY = "numpy==1.26.4"
ONNXRUNTIME = """
from pathlib import Path
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.session = onnxruntime.InferenceSession(folder / "model.onnx")

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = list(request.requested_output_names())
        made = self.session.run(names, given)
        return triton.InferenceResponse([triton.Tensor(n, x) for n, x in zip(names, made)])
"""


def installed() -> Path:
    """The folder of the server that the wheel brought."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the wheel that brings a Triton server is not available on this platform")
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a Triton server is that has loaded the exported bundle."""
    work, brought = tmp_path_factory.mktemp("triton-server"), installed()
    backends, models = work / "backends", work / "models"
    shutil.copytree(brought / "backends", backends)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = backends / "python" / "triton_python_backend_stub"
    shutil.copy(brought / "python_backend_stubs" / version / stub.name, stub)
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime" / "model.py").write_text(ONNXRUNTIME)
    result = CliRunner().invoke(main, ["export", "triton", str(bundle), str(models)])
    assert result.exit_code == 0, result.output
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    words = [f"--model-repository={models}", f"--backend-directory={backends}"]
    words += ["--allow-http=false", "--allow-metrics=false", "--grpc-address=127.0.0.1"]
    words += [f"--grpc-port={port}"]
    bin_ = older_numpy(work / "venv") / "bin"
    libraries = brought.parent.parent / "nvidia_pytriton.libs"
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    log = work / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [brought / "bin" / "tritonserver", *words],
            env={**os.environ, "PATH": path, "LD_LIBRARY_PATH": str(libraries)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_ready(f"127.0.0.1:{port}", process, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def older_numpy(folder: Path) -> Path:
    """A virtual environment of all that is here, but with the numpy that this server wants.

    Its Python backend was built for numpy 1, and misreads the strings of a later one.
    """
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    words = ["install", "-q", "--only-binary", ":all:", "--no-deps", "--target", str(packages)]
    done = subprocess.run([sys.executable, "-m", "pip", *words, NUMPY])
    if done.returncode != 0:
        pytest.skip(f"{NUMPY} is not available for this Python")
    return folder


def wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    with InferenceServerClient(address) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                if client.is_server_ready():
                    return
            except InferenceServerException:
                pass
            time.sleep(0.1)
    if "libpython" in log.read_text():
        pytest.skip("this platform has no libpython for the server to load")
    raise AssertionError(log.read_text()[-4000:])


def ask(address: str, **values: list[Any]) -> NDArray[np.int64]:
    """Pictures (N, H, W, 3), a row of each value for each of them."""
    kinds = {"SEED": np.int64, "STEPS": np.int32, "GUIDANCE_SCALE": np.float32}
    inputs = []
    for name, rows in values.items():
        array = np.array(rows, kinds.get(name, np.object_)).reshape(-1, 1)
        inputs.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    with InferenceServerClient(address) as client:
        answer = client.infer("bundle", inputs, client_timeout=120)
    return np.asarray(answer.as_numpy("IMAGE"), np.int64)


def test_it_draws_what_the_bundle_draws(bundle: Path, server: str) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(request(manifest, PROMPTS, [3, 4]))
    together = ask(server, PROMPT=PROMPTS, SEED=[3, 4])
    assert together.shape == wanted.shape
    assert np.abs(together - wanted).max() <= 2
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(ask, server, PROMPT=[prompt], SEED=[seed])
            for prompt, seed in zip(PROMPTS, (3, 4), strict=True)
        ]
        apart = np.concatenate([one.result() for one in asked])
    assert np.abs(apart - wanted).max() <= 2


def test_what_is_asked_for_is_heeded(bundle: Path, server: str) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(
        request(manifest, ["a"], [1], guidance_scale=1.5, negative_prompt="b", steps=6)
    )
    size = f"{manifest.sampling.width}x{manifest.sampling.height}"
    more: dict[str, list[Any]] = {"STEPS": [6], "GUIDANCE_SCALE": [1.5], "NEGATIVE_PROMPT": ["b"]}
    drawn = ask(server, PROMPT=["a"], SEED=[1], SIZE=[size], **more)
    assert np.abs(drawn - wanted).max() <= 2


def test_what_is_wrong_is_told(server: str) -> None:
    with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*7 steps"):
        ask(server, PROMPT=["a"], STEPS=[7])
    with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*SIZE"):
        ask(server, PROMPT=["a"], SIZE=["no size"])
    with pytest.raises(InferenceServerException, match="PROMPT"):
        ask(server, SEED=[1])
    assert len(ask(server, PROMPT=["a"], SEED=[1])) == 1
