"""A stand-in for what Triton gives a Python model, over ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import triton_to_np_dtype


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
            kind = triton_to_np_dtype(type_of(one))
            assert arrays[one.name].dtype == kind
            shape = arrays[one.name].shape
            assert len(shape) == len(one.dims)
            assert all(size in (-1, seen) for size, seen in zip(one.dims, shape, strict=True))


def type_of(one: Any) -> str:
    field = type(one).DESCRIPTOR.fields_by_name["data_type"].enum_type
    return str(field.values_by_number[one.data_type].name.removeprefix("TYPE_"))
