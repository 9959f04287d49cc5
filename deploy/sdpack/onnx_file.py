"""ONNX files: reading them without their weights, and writing the same bytes every time."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
    ShapeInferencePass,
)

from sdpack.errors import GraphError

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
EXTERNAL_FROM_BYTES = 1024
MAKE_SEQUENCES = frozenset(
    {
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceMap",
        "SplitToSequence",
    }
)


def read(path: Path) -> ir.Model:
    """The graph at `path`; weights in external data stay there until they are looked at.

    However it was written, all fixed values are initializers, functions are written out, and
    values have types.

    Raises:
        GraphError: there is no such file, it is no ONNX graph, or weights are missing or cut off.
    """
    if not path.is_file():
        raise GraphError(f"{path}: there is no such file; give an ONNX file")
    try:
        model = ir.load(path)
    except Exception as cause:  # protobuf and onnx_ir raise classes of their own
        raise GraphError(f"{path} is no ONNX graph ({type(cause).__name__}); export it anew") from (
            cause
        )
    if not len(model.graph) and not model.graph.outputs:
        raise GraphError(f"{path} is no ONNX graph, or an empty one; export it anew")
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(path, tensor)
    return _completed(model)


def _completed(model: ir.Model) -> ir.Model:
    if model.functions:
        model = InlinePass()(model).model
    if any(node.op_type == "Constant" for node in model.graph):
        model = LiftConstantsToInitializersPass(lift_all_constants=False)(model).model
    if any(value in model.graph.inputs for value in model.graph.initializers.values()):
        model = RemoveInitializersFromInputsPass()(model).model
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        model = ShapeInferencePass(strict_mode=False)(model).model
        _restore_containers(model)
    return model


def _restore_containers(model: ir.Model) -> None:
    """Give sequences and optionals their types: shape inference makes tensors of them."""
    for node in model.graph.all_nodes():
        given = node.inputs[0] if node.inputs else None
        for value in node.outputs:
            if not isinstance(value.type, ir.TensorType):
                continue
            if node.op_type in MAKE_SEQUENCES:
                value.type, value.shape = ir.SequenceType(value.type), None
            elif node.op_type == "Optional" and given is not None and given.type is not None:
                value.type, value.shape = ir.OptionalType(deepcopy(given.type)), None
            elif node.op_type == "Identity" and isinstance(
                given and given.type, ir.SequenceType | ir.OptionalType
            ):
                value.type, value.shape = deepcopy(given.type), None


def files_of(path: Path) -> list[Path]:
    """The file of a graph and those its weights are kept in.

    Raises:
        GraphError: as `read`.
    """
    tensors = (value.const_value for value in read(path).graph.initializers.values())
    kept = {Path(tensor.path) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    return [path, *sorted(kept)]


def _check_external(path: Path, tensor: ir.ExternalTensor) -> None:
    data = Path(tensor.path)
    if not data.is_file():
        raise GraphError(
            f"{path}: the weight {tensor.name} is kept in {data}, which is missing; put it back "
            "beside the graph"
        )
    needed = (tensor.offset or 0) + (tensor.length or 0)
    if data.stat().st_size < needed:
        raise GraphError(
            f"{path}: the weight {tensor.name} ends at byte {needed} of {data}, which has "
            f"{data.stat().st_size}; the file is cut off, copy it again"
        )


def write(model: ir.Model, path: Path) -> None:
    """Write a graph and, beside it in PATH.data, its weights; the same model gives the same bytes.

    Lazy weights are made one after the other while they are written.

    Raises:
        GraphError: what was written is not valid ONNX.
        OSError: it cannot be written.
    """
    _forget_origins(model)
    data = f"{path.name}.data"
    ir.save(model, path, external_data=data, size_threshold_bytes=EXTERNAL_FROM_BYTES)
    _check(path)


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as cause:
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        raise GraphError(f"{path} is not valid ONNX: {lines[-1]}; report it") from cause


def write_beside(model: ir.Model, path: Path) -> None:
    """Write a graph into the folder it was read from, where its weights stay in the file they are
    in; what was added to it since is kept in the graph itself.

    Raises:
        GraphError: what was written is not valid ONNX.
        OSError: it cannot be written.
    """
    _forget_origins(model)
    ir.save(model, path)
    _check(path)


def _forget_origins(model: ir.Model) -> None:
    """Drop stack traces and other notes of where a node came from: they name a machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
