from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from sdpack.documents.bundle import open_bundle
from sdpack.serve.triton.repository import Tensor
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.sdpack.serve.triton.backend import configs


def test_triton_understands_every_config(repository: Path, bundle: Path) -> None:
    found = configs(repository)
    whole = found.pop("bundle")
    assert whole.max_batch_size == open_bundle(bundle).sampling.batch
    assert whole.backend == "python"
    assert whole.HasField("dynamic_batching")
    assert sorted(found) == ["bundle-decoder", "bundle-denoiser", "bundle-text_encoder"]
    assert {config.backend for config in found.values()} == {"onnxruntime"}
    assert {one.name for one in found["bundle-denoiser"].input} == {
        "sample",
        "timestep",
        "encoder_hidden_states",
    }


def test_a_tensor_is_written_as_triton_reads_it() -> None:
    written = f'name: "m" input [ {Tensor("x", "TYPE_FP32", [-1, 4], optional=True)} ]'
    (read,) = text_format.Parse(written, ModelConfig()).input
    assert (read.name, list(read.dims), read.optional) == ("x", [-1, 4], True)
