"""ONNX files: reading them without their weights, and writing the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path, PurePosixPath, PureWindowsPath

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
        GraphError: there is no such file, it is not an ONNX graph, or weights are missing, cut off,
            or at a place where ONNX Runtime does not read them.
    """
    model = _loaded(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _readable(value.const_value)
    for node, name, tensor in _external_attributes(model):
        node.attributes[name] = ir.AttrTensor(name, _readable(tensor))
    return _completed(model)


def _loaded(path: Path) -> ir.Model:
    """The graph as it was written; all its external data is there."""
    if path.is_dir():
        raise GraphError(f"{path} is a folder; give the ONNX file in it")
    if not path.is_file():
        raise GraphError(f"{path}: there is no such file; give an ONNX file")
    try:
        model = ir.load(path)
    except Exception as cause:  # protobuf and onnx_ir raise classes of their own
        raise GraphError(
            f"{path} is not an ONNX graph ({type(cause).__name__}); export it again"
        ) from cause
    if not len(model.graph) and not model.graph.outputs:
        raise GraphError(f"{path} is not an ONNX graph, or is empty; export it again")
    for tensor in _external(model):
        _check_external(path, tensor)
    return model


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every tensor in external data, those of branches and loops included."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
    for _, _, tensor in _external_attributes(model):
        yield tensor


def _external_attributes(model: ir.Model) -> list[tuple[ir.Node, str, ir.ExternalTensor]]:
    """Attributes that are a tensor in external data: its node, its name, the tensor."""
    return [
        (node, name, attribute.value)
        for node in model.graph.all_nodes()
        for name, attribute in node.attributes.items()
        if isinstance(attribute.value, ir.ExternalTensor)
    ]


def _readable(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    """The tensor, by the file it lies in where onnx_ir would refuse the name it is given.

    onnx_ir reads no file with a second hard link and none behind a symbolic link out of the
    graph's folder, as the Hugging Face cache keeps all files. It looks at neither where no base
    directory is named. Files are checked here by what ONNX Runtime allows: see `_check_place`.
    """
    real = os.path.realpath(tensor.path)
    inside = Path(real).is_relative_to(os.path.realpath(tensor.base_dir))
    if inside and Path(real).stat().st_nlink == 1:
        return tensor
    return ir.ExternalTensor(
        real,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=str(tensor.name),
        doc_string=tensor.doc_string,
        metadata_props=tensor.metadata_props,
    )


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
            elif given is not None and node.op_type == "Identity" and _is_container(given):
                value.type, value.shape = deepcopy(given.type), None


def _is_container(value: ir.Value) -> bool:
    return isinstance(value.type, ir.SequenceType | ir.OptionalType)


def files_of(path: Path) -> list[Path]:
    """The file of a graph and those its weights are kept in, by the names the graph gives them.

    Raises:
        GraphError: as `read`.
    """
    return [path, *sorted({Path(tensor.path) for tensor in _external(_loaded(path))})]


def _check_external(path: Path, tensor: ir.ExternalTensor) -> None:
    _check_place(path, tensor)
    data = Path(tensor.path)
    if not data.is_file():
        raise GraphError(
            f"{path}: the weight {tensor.name} is stored in {data}, which is missing; put it back "
            "beside the graph"
        )
    needed = (tensor.offset or 0) + (tensor.length or 0)
    if data.stat().st_size < needed:
        raise GraphError(
            f"{path}: the weight {tensor.name} ends at byte {needed} of {data}, which has "
            f"{data.stat().st_size} bytes: the file is truncated; copy it again"
        )


def _check_place(path: Path, tensor: ir.ExternalTensor) -> None:
    """Refuse weights where ONNX Runtime would not read them.

    Its rule (ValidateExternalDataPath in tensorprotoutils.cc): the location is relative, and leads,
    with symbolic links followed, into the folder the graph was asked for in, or into the folder
    that holds the graph's own file. Other readers of a graph are held to the same.
    """
    location = str(tensor.location)
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute():
        raise GraphError(
            f"{path}: the weight {tensor.name} is stored at the absolute path {location}, which "
            "ONNX does not allow; export the graph again, with its weights in its own folder"
        )
    folders = {Path(os.path.realpath(path.parent)), Path(os.path.realpath(path)).parent}
    real = Path(os.path.realpath(tensor.path))
    if not any(real.is_relative_to(folder) for folder in folders):
        raise GraphError(
            f"{path}: the weight {tensor.name} is stored in {real}, outside the graph's folder, "
            "where ONNX Runtime does not read it; export the graph again, with its weights in its "
            "own folder, or put the file there that a link leads to"
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


def _check(path: Path, proto: onnx.ModelProto | None = None) -> None:
    """Check the graph at `path`, or what stands for it."""
    try:
        onnx.checker.check_model(str(path) if proto is None else proto)
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
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and Path(entry.value).is_absolute():
                entry.value = os.path.relpath(entry.value, os.path.realpath(path.parent))
    onnx.save(proto, path)
    # The checker refuses data with a second hard link, which ONNX Runtime reads. The data was
    # checked when it was written: here its tensors are inputs, and the graph alone is checked.
    for tensor in [t for t in proto.graph.initializer if t.external_data]:
        proto.graph.initializer.remove(tensor)
        if tensor.name not in {value.name for value in proto.graph.input}:
            given = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            proto.graph.input.append(given)
    _check(path, proto)


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
