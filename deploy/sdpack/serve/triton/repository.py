"""Writing a model repository."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from sdpack.documents.layout import MANIFEST
from sdpack.documents.manifest import Engine, Manifest
from sdpack.domain.precision import Runtime
from sdpack.errors import BundleError, StoreError
from sdpack.rewrite.onnx_file import files_of, read
from sdpack.runtime.bundle import engines
from sdpack.serve.triton.model import BUNDLE_FOLDER, PARTS, runtime_of
from sdpack.store.files import explain_io, unfinished_name

MODEL_VERSION = "1"
TILED = ("stem", "head", "tail")  # graphs of a decoder in tiles; "head" in bundles of schema 2
MODEL_CONFIG = "config.pbtxt"
TYPES = {
    ir.DataType.FLOAT: "TYPE_FP32",
    ir.DataType.FLOAT16: "TYPE_FP16",
    ir.DataType.BFLOAT16: "TYPE_BF16",
    ir.DataType.INT64: "TYPE_INT64",
    ir.DataType.INT32: "TYPE_INT32",
    ir.DataType.BOOL: "TYPE_BOOL",
}
DELAY_US = 10_000  # that a batch waits to fill
MODEL = '''"""Draws with a bundle's parts, which Triton runs."""

from pathlib import Path

import triton_python_backend_utils as pb_utils
from sdpack.serve.triton.model import Model


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.model = Model(folder, pb_utils)

    def execute(self, requests):
        return self.model.execute(requests)

    def finalize(self):
        self.model.close()
'''


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model, as a config names it; -1 is any size."""

    name: str
    type: str
    dims: Sequence[int]
    optional: bool = False

    def __str__(self) -> str:
        more = " optional: true" if self.optional else ""
        dims = ", ".join(map(str, self.dims))
        return f'{{ name: "{self.name}" data_type: {self.type} dims: [ {dims} ]{more} }}'


@dataclass(frozen=True)
class PartModel:
    """Properties of a part's model that the Python model needs."""

    model: str
    outputs: Sequence[str]


def export_repository(bundle: Path, manifest: Manifest, target: Path) -> list[str]:
    """Write an opened bundle as a model repository; returns the models' names, that to ask first.

    Graphs are run by Triton's ONNX Runtime, or by TensorRT where the bundle has plans of it. Plans
    of TensorRT-RTX, for which Triton has no backend, stay behind, and their graphs are taken.

    Raises:
        StoreError: the folder holds something already, or cannot be written.
        BundleError: Triton cannot run it.
    """
    target = Path(os.path.realpath(target))
    new = target.parent / unfinished_name(target.name)
    try:
        if target.exists() and any(target.iterdir()):
            raise StoreError(f"{target} is not empty; choose another folder")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        names = _fill(bundle, manifest, new)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            target.rmdir()
        new.rename(target)
    except OSError as cause:
        raise StoreError(explain_io(cause, target)) from cause
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return names


def _fill(bundle: Path, manifest: Manifest, folder: Path) -> list[str]:
    parts: dict[str, PartModel] = {}
    runtime = runtime_of(manifest)
    for engine in loaded(manifest):
        if engine.plan is None and runtime is Runtime.TENSORRT:
            raise BundleError(
                f"{bundle}: {engine.graph} has no plan yet; run `sdpack finish {bundle}` on the "
                "device, then export"
            )
        parts[engine.graph] = _write_part(bundle, manifest, engine, folder)
    held = folder / manifest.name / MODEL_VERSION / BUNDLE_FOLDER
    held.mkdir(parents=True)
    (held.parent / "model.py").write_text(MODEL)
    listed = {graph: asdict(part) for graph, part in parts.items()}
    (held.parent / PARTS).write_text(json.dumps(listed, indent=1) + "\n")
    shutil.copyfile(bundle / MANIFEST, held / MANIFEST)
    for name in manifest.files:
        if "/tokenizer" in name or (name.startswith("sampler") and name.endswith(".json")):
            (held / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, held / name)
    (folder / manifest.name / MODEL_CONFIG).write_text(_asked_config(manifest))
    return [manifest.name, *(part.model for part in parts.values())]


def loaded(manifest: Manifest) -> list[Engine]:
    """The Triton models of all parts."""
    runtime = runtime_of(manifest)
    return [engine for role in manifest.parts for engine in engines(manifest, role, runtime)]


def _write_part(bundle: Path, manifest: Manifest, engine: Engine, folder: Path) -> PartModel:
    graph = Path(engine.graph)
    model = read(bundle / graph)
    piece = f"-{graph.stem}" if graph.stem in TILED else ""
    name = f"{manifest.name}-{graph.parent.name}{piece}"
    version = folder / name / MODEL_VERSION
    version.mkdir(parents=True)
    if runtime_of(manifest) is Runtime.TENSORRT:
        assert engine.plan is not None
        shutil.copyfile(bundle / engine.plan, version / "model.plan")
        backend = 'platform: "tensorrt_plan"'
    else:
        for file in files_of(bundle / graph):
            is_graph = file == bundle / graph
            shutil.copyfile(file, version / ("model.onnx" if is_graph else file.name))
        backend = 'backend: "onnxruntime"'
    inputs = [_tensor(value) for value in model.graph.inputs]
    outputs = [_tensor(value) for value in model.graph.outputs]
    runtime = manifest.profile.runtime
    kind = "KIND_GPU" if runtime.on_gpu else "KIND_CPU"
    (folder / name / MODEL_CONFIG).write_text(
        f'name: "{name}"\n{backend}\nmax_batch_size: 0\n'
        + _listed("input", inputs)
        + _listed("output", outputs)
        + f"instance_group [ {{ kind: {kind} count: 1 }} ]\n"
    )
    return PartModel(name, [tensor.name for tensor in outputs])


def _tensor(value: ir.Value) -> Tensor:
    assert value.dtype is not None
    assert value.shape is not None
    if value.dtype not in TYPES:
        raise BundleError(f"{value.name} has type {value.dtype}, which Triton does not support")
    dims = [size if isinstance(size, int) else -1 for size in value.shape]
    return Tensor(str(value.name), TYPES[value.dtype], dims)


def _listed(word: str, tensors: Sequence[Tensor]) -> str:
    lines = ",\n".join(f"  {tensor}" for tensor in tensors)
    return f"{word} [\n{lines}\n]\n"


def _asked_config(manifest: Manifest) -> str:
    inputs = [
        Tensor("PROMPT", "TYPE_STRING", [1]),
        Tensor("NEGATIVE_PROMPT", "TYPE_STRING", [1], optional=True),
        Tensor("SEED", "TYPE_INT64", [1], optional=True),
        Tensor("STEPS", "TYPE_INT32", [1], optional=True),
        Tensor("GUIDANCE_SCALE", "TYPE_FP32", [1], optional=True),
        Tensor("SIZE", "TYPE_STRING", [1], optional=True),
    ]
    outputs = [Tensor("IMAGE", "TYPE_UINT8", [-1, -1, 3])]
    return (
        f'name: "{manifest.name}"\nbackend: "python"\n'
        f"max_batch_size: {manifest.sampling.batch}\n"
        + _listed("input", inputs)
        + _listed("output", outputs)
        + f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY_US} }}\n"
        + "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    )
