"""ONNX files: reading with lazy weights, and reproducible writing."""

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
    """Read a graph; weights in external data are read on access.

    The graph is normalized: constants become initializers, functions are inlined, and values have
    types.

    Raises:
        GraphError: the file is missing or not an ONNX graph, or weights are missing, truncated, or
            in a place where ONNX Runtime does not read them.
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
    """Load a graph unchanged, after checking its external data."""
    if path.is_dir():
        raise GraphError(f"{path} is a folder; give the ONNX file in it")
    if not path.is_file():
        raise GraphError(f"{path}: there is no such file; give an ONNX file")
    try:
        model = ir.load(path)
    except Exception as cause:  # protobuf and onnx_ir raise their own classes
        raise GraphError(
            f"{path} is not an ONNX graph ({type(cause).__name__}); export it again"
        ) from cause
    if not len(model.graph) and not model.graph.outputs:
        raise GraphError(f"{path} is not an ONNX graph, or is empty; export it again")
    for tensor in _external(model):
        _check_external(path, tensor)
    return model


def _external(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yield every tensor in external data, including those of subgraphs."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
    for _, _, tensor in _external_attributes(model):
        yield tensor


def _external_attributes(model: ir.Model) -> list[tuple[ir.Node, str, ir.ExternalTensor]]:
    """Return the attributes that are tensors in external data, as (node, name, tensor)."""
    return [
        (node, name, attribute.value)
        for node in model.graph.all_nodes()
        for name, attribute in node.attributes.items()
        if isinstance(attribute.value, ir.ExternalTensor)
    ]


def _readable(tensor: ir.ExternalTensor) -> ir.ExternalTensor:
    """Return a tensor that onnx_ir can read, under the real path of its file if necessary.

    onnx_ir refuses files with several hard links and files behind a symbolic link that leaves the
    graph's folder, such as all files of the Hugging Face cache. Without a base directory it checks
    neither. `_check_place` applies ONNX Runtime's rules instead.
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
    graph = model.graph
    if any(initializer in graph.inputs for initializer in graph.initializers.values()):
        model = RemoveInitializersFromInputsPass()(model).model
    if any(value.dtype is None for node in model.graph for value in node.outputs):
        model = ShapeInferencePass(strict_mode=False)(model).model
        _restore_containers(model)
    return model


def _restore_containers(model: ir.Model) -> None:
    """Restore the types of sequences and optionals, which shape inference turns into tensors."""
    for node in model.graph.all_nodes():
        source = node.inputs[0] if node.inputs else None
        for value in node.outputs:
            if not isinstance(value.type, ir.TensorType):
                continue
            if node.op_type in MAKE_SEQUENCES:
                value.type, value.shape = ir.SequenceType(value.type), None
            elif node.op_type == "Optional" and source is not None and source.type is not None:
                value.type, value.shape = ir.OptionalType(deepcopy(source.type)), None
            elif source is not None and node.op_type == "Identity" and _is_container(source):
                value.type, value.shape = deepcopy(source.type), None


def _is_container(value: ir.Value) -> bool:
    return isinstance(value.type, ir.SequenceType | ir.OptionalType)


def files_of(path: Path) -> list[Path]:
    """Return a graph's file and the files of its weights, under the names in the graph.

    Raises:
        GraphError: as in `read`.
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
    """Refuse weights in places where ONNX Runtime does not read them.

    ONNX Runtime's rule (ValidateExternalDataPath in tensorprotoutils.cc): the location is relative
    and, after following symbolic links, lies in the folder of the given path or in the folder of
    the graph's real file.
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
            "own folder, or replace the link by the file itself"
        )


def write(model: ir.Model, path: Path) -> None:
    """Write a graph, and its weights to PATH.data; the same model gives the same bytes.

    Lazy weights are computed one at a time.

    Raises:
        GraphError: the written graph is not valid ONNX.
        OSError: it cannot be written.
    """
    _forget_origins(model)
    data = f"{path.name}.data"
    ir.save(model, path, external_data=data, size_threshold_bytes=EXTERNAL_FROM_BYTES)
    _check(path)


def _check(path: Path, proto: onnx.ModelProto | None = None) -> None:
    """Check the graph at `path`, or `proto` in its place."""
    try:
        onnx.checker.check_model(str(path) if proto is None else proto)
    except onnx.checker.ValidationError as cause:
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        raise GraphError(f"{path} is not valid ONNX: {lines[-1]}; report it") from cause


def write_beside(model: ir.Model, path: Path) -> None:
    """Write a graph into the folder that it was read from, sharing the existing file of weights.

    Tensors that were added since are stored in the graph itself.

    Raises:
        GraphError: the written graph is not valid ONNX.
        OSError: it cannot be written.
    """
    _forget_origins(model)
    proto = ir.to_proto(model)
    graph = proto.graph
    for tensor in graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and Path(entry.value).is_absolute():
                entry.value = os.path.relpath(entry.value, os.path.realpath(path.parent))
    onnx.save(proto, path)
    # The checker refuses data with several hard links, which ONNX Runtime accepts. The data was
    # checked when it was written, so only the graph is checked here, with its weights as inputs.
    for tensor in [t for t in graph.initializer if t.external_data]:
        graph.initializer.remove(tensor)
        if tensor.name not in {value.name for value in graph.input}:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(info)
    _check(path, proto)


def _forget_origins(model: ir.Model) -> None:
    """Remove stack traces and other metadata, which contain paths of the exporting machine."""
    graph = model.graph
    model.metadata_props.clear()
    graph.metadata_props.clear()
    graph.doc_string = None
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
