"""A model repository, read by Triton's own definitions and run by a stand-in for its server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from numpy.typing import NDArray
from sdpack.cli.main import main
from sdpack.documents.bundle import open_bundle
from sdpack.runtime.bundle import pipeline, request
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import triton_to_np_dtype

PROMPTS = ["noto, pizza", "twemoji, red heart"]


@pytest.fixture(scope="module")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    result = CliRunner().invoke(main, ["export", "triton", str(bundle), str(folder)])
    assert result.exit_code == 0, result.output
    assert "send requests to bundle" in result.output
    return folder


def configs(repository: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(repository.glob("*/config.pbtxt")):
        config = text_format.Parse(path.read_text(), ModelConfig())
        assert config.name == path.parent.name
        found[config.name] = config
    return found


class Backend(ModuleType):
    """`triton_python_backend_utils` as Triton gives it to a Python model, over ONNX Runtime.

    It holds a model to its config: the names, types and sizes of all it is given and gives out.
    """

    TRITONSERVER_MEMORY_CPU = 0

    def __init__(self, repository: Path) -> None:
        super().__init__("triton_python_backend_utils")
        self.repository = repository
        self.configs = configs(repository)
        self.ran: list[str] = []

    class Tensor:
        def __init__(self, name: str, values: NDArray[Any]) -> None:
            assert values.flags.c_contiguous
            self.name, self._values = name, values

        def as_numpy(self) -> NDArray[Any]:
            return self._values

    class TritonError(Exception):
        INVALID_ARG, INTERNAL = 3, 1

        def __init__(self, message: str, code: int = INTERNAL) -> None:
            super().__init__(message)
            self.code = code

        def message(self) -> str:
            return str(self)

    class InferenceResponse:
        def __init__(self, output_tensors: list[Any], error: Any = None) -> None:
            self.tensors = {tensor.name: tensor for tensor in output_tensors}
            self._error = error

        def has_error(self) -> bool:
            return self._error is not None

        def error(self) -> Any:
            return self._error

    def PreferredMemory(self, kind: int, number: int) -> tuple[int, int]:  # noqa: N802
        return kind, number

    def get_input_tensor_by_name(self, asked: Any, name: str) -> Any:
        return asked.inputs.get(name)

    def get_output_tensor_by_name(self, answer: Any, name: str) -> Any:
        return answer.tensors[name]

    def InferenceRequest(self, model_name: str, inputs: list[Any], **more: Any) -> Any:  # noqa: N802
        def run() -> Any:
            return self._run(model_name, inputs, more["requested_output_names"])

        return SimpleNamespace(exec=run)

    def _run(self, name: str, inputs: list[Any], wanted: list[str]) -> Any:
        self.ran.append(name)
        config = self.configs[name]
        given = {tensor.name: tensor.as_numpy() for tensor in inputs}
        self.see(config.input, given)
        session = onnxruntime.InferenceSession(self.repository / name / "1" / "model.onnx")
        made = dict(zip(wanted, session.run(wanted, given), strict=True))
        self.see(config.output, made)
        tensors = [self.Tensor(key, value) for key, value in made.items()]
        return self.InferenceResponse(tensors)

    @staticmethod
    def see(listed: Any, arrays: dict[str, NDArray[Any]]) -> None:
        assert {one.name for one in listed} == set(arrays)
        for one in listed:
            kind = triton_to_np_dtype(_type(one))
            assert arrays[one.name].dtype == kind
            shape = arrays[one.name].shape
            assert len(shape) == len(one.dims)
            assert all(size in (-1, seen) for size, seen in zip(one.dims, shape, strict=True))


def _type(one: Any) -> str:
    field = type(one).DESCRIPTOR.fields_by_name["data_type"].enum_type
    return str(field.values_by_number[one.data_type].name.removeprefix("TYPE_"))


@pytest.fixture
def backend(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    made = Backend(repository)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.fixture
def model(repository: Path, backend: Backend) -> Any:
    """The Python model, as Triton makes it."""
    path = repository / "bundle" / "1" / "model.py"
    spec = importlib.util.spec_from_file_location("model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    folder = str(repository / "bundle")
    made.initialize({"model_repository": folder, "model_version": "1"})
    return made


def asked(backend: Backend, **values: Any) -> Any:
    """A request of one row, as Triton's dynamic batcher hands it on."""
    kinds = {one.name: _type(one) for one in backend.configs["bundle"].input}
    inputs = {}
    for name, value in values.items():
        kind = triton_to_np_dtype(kinds[name])
        inputs[name] = backend.Tensor(name, np.array([[value]], kind))
    return SimpleNamespace(inputs=inputs)


def test_triton_understands_every_config(repository: Path, bundle: Path) -> None:
    found = configs(repository)
    whole = found.pop("bundle")
    assert whole.max_batch_size == open_bundle(bundle).sampling.batch
    assert whole.backend == "python"
    assert whole.HasField("dynamic_batching")
    assert sorted(found) == ["bundle-text_encoder", "bundle-unet", "bundle-vae_decoder"]
    assert {config.backend for config in found.values()} == {"onnxruntime"}
    assert {one.name for one in found["bundle-unet"].input} == {
        "sample",
        "timestep",
        "encoder_hidden_states",
    }


def test_it_draws_what_the_bundle_draws(bundle: Path, model: Any, backend: Backend) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(request(manifest, PROMPTS, [3, 4]))
    requests = [
        asked(backend, PROMPT=prompt.encode(), SEED=seed)
        for prompt, seed in zip(PROMPTS, (3, 4), strict=True)
    ]
    answers = model.execute(requests)
    drawn = [answer.tensors["IMAGE"].as_numpy() for answer in answers]
    assert [picture.dtype for picture in drawn] == [np.uint8] * 2
    assert np.abs(np.concatenate(drawn).astype(int) - wanted).max() <= 2
    assert backend.ran.count("bundle-vae_decoder") == 1, "they were not drawn together"
    model.finalize()


def test_what_is_asked_for_is_heeded(bundle: Path, model: Any, backend: Backend) -> None:
    manifest = open_bundle(bundle)
    wanted = pipeline(bundle, manifest).draw(
        request(manifest, ["a"], [1], guidance_scale=1.5, negative_prompt="b", steps=6)
    )
    values = {"SEED": 1, "STEPS": 6, "GUIDANCE_SCALE": 1.5, "NEGATIVE_PROMPT": b"b"}
    one, other = model.execute(
        [asked(backend, PROMPT=b"a", **values), asked(backend, PROMPT=b"a", SEED=1)]
    )
    drawn = one.tensors["IMAGE"].as_numpy()
    assert np.abs(drawn.astype(int) - wanted).max() <= 2
    assert np.abs(drawn.astype(int) - other.tensors["IMAGE"].as_numpy()).max() > 2


def test_what_is_wrong_is_an_error_of_its_own_request(model: Any, backend: Backend) -> None:
    wrong, right, none = model.execute(
        [
            asked(backend, PROMPT=b"a", STEPS=7),
            asked(backend, PROMPT=b"a"),
            asked(backend, SIZE=b"64"),
        ]
    )
    assert "7 steps" in wrong.error().message()
    assert wrong.error().code == Backend.TritonError.INVALID_ARG
    assert not right.has_error()
    assert "PROMPT is missing" in none.error().message()


def test_a_broken_picture_is_an_error_of_its_own_request(
    model: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = model.model._pipeline.decode

    def broken(latents: NDArray[np.float32]) -> NDArray[np.float32]:
        decoded: NDArray[np.float32] = decode(latents)
        decoded[0] = np.nan
        return decoded

    monkeypatch.setattr(model.model._pipeline, "decode", broken)
    requests = [asked(backend, PROMPT=b"a", SEED=seed) for seed in (1, 2)]
    wrong = asked(backend, PROMPT=b"a", GUIDANCE_SCALE=float("nan"))
    first, second, third = model.execute([*requests, wrong])
    assert "not finite" in first.error().message()
    assert not second.has_error()
    assert "GUIDANCE_SCALE" in third.error().message()


def test_a_folder_that_holds_something_is_left_alone(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    result = CliRunner().invoke(main, ["export", "triton", str(bundle), str(tmp_path)])
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
