"""Statistics of a graph's activations on real inputs, from one pass over the batches.

    moments   second moments of each layer's inputs; weights of its rounding errors
    ranges    range of each layer's input; determines its int8 scale
    extent    the largest magnitude anywhere; fp16 must be able to represent it

The range of a tensor is its clipping threshold (`clipping`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.engines.onnxruntime import OrtSession, load
from sdpack.errors import QuantizationError
from sdpack.progress import Step, unheard
from sdpack.quantization.archive import archive
from sdpack.quantization.input_statistics import InputStatistics
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.moment_runs import threads_for_layers
from sdpack.quantization.opset import require_observable
from sdpack.quantization.rounding import Moment
from sdpack.quantization.scratch import reported_as
from sdpack.quantization.threads import in_order
from sdpack.quantization.uses import LayerKind
from sdpack.rewrite.onnx_file import EXTERNAL_FROM_BYTES, read
from sdpack.store.artifacts import digest

MOMENTS = "moments.npz"
SEEN_FOLDER = "seen"
LIMITS = {"sdpack_masked_from": 1e30, "sdpack_nothing": 0.0}

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Extent:
    """The largest magnitude of any activation of a graph, and the node that computed it.

    Magnitudes of 1e30 and more are not counted: they belong to masks, which work in any type.
    """

    largest: float
    node: str


@dataclass(frozen=True)
class Observed:
    """Statistics of one graph's activations; moments are read from disk on access.

    Attributes:
        folder: the folder that `observe` wrote.
        ranges: clipping threshold of each layer's input, by layer.
        noise: energy that rounding this input to int8 adds to the layer's outputs, relative to
            their energy, by layer.
        peaks: largest output magnitude of each node, by node.
    """

    folder: Path
    ranges: Mapping[str, float]
    noise: Mapping[str, float]
    peaks: Mapping[str, float]

    @property
    def extent(self) -> Extent:
        node = max(self.peaks, key=lambda name: self.peaks[name], default="")
        return Extent(self.peaks.get(node, 0.0), node)

    @cached_property
    def _runs(self) -> dict[str, list[str]]:
        """Names of each layer's moments in the archive."""
        return dict(json.loads((self.folder / "moments.json").read_text()))

    def moments(self, layer: str) -> tuple[Moment, ...] | None:
        """Return a layer's moments for consecutive runs of columns, or None if it has none."""
        names = self._runs.get(layer)
        if names is None:
            return None
        with np.load(self.folder / MOMENTS) as arrays:
            return tuple(Moment(arrays[name]) for name in names)


def read_observed(folder: Path) -> Observed:
    """Read the statistics that `observe` wrote into a folder."""
    values = json.loads((folder / "activations.json").read_text())
    return Observed(folder, values["ranges"], values["noise"], values["peaks"])


def observe(
    path: Path,
    batches: Sequence[Inputs],
    folder: Path,
    threads: int | None = None,
    step: Step = unheard,
) -> Observed:
    """Run a graph on real inputs, and write statistics of its activations into a folder.

    Args:
        path: the graph.
        batches: real inputs of the graph.
        folder: where to write; needs space for all inputs of all layers.
        threads: number of CPU threads.
        step: called for each layer, after the graph has run.

    Raises:
        QuantizationError: there are no batches, an activation is not finite, or the graph's opset
            is too old.
        EngineError: the graph does not run on them.
    """
    if not batches:
        raise QuantizationError(f"{path}: no calibration inputs; give at least one batch")
    scratch = folder / SEEN_FOLDER
    scratch.mkdir()
    try:
        watched = _expose(path, scratch / path.name)
        saved = _SavedInputs(scratch, len(batches))
        with reported_as(path, scratch / path.name):
            peaks = _watch(watched, scratch / path.name, batches, saved, threads)
        by_layer = _layer_statistics(path, watched.layers, saved, folder, step)
    finally:
        shutil.rmtree(scratch)
    statistics = {**by_layer, "peaks": peaks}
    (folder / "activations.json").write_text(json.dumps(statistics, indent=1))
    return Observed(folder, **statistics)


@dataclass(frozen=True)
class _SavedInputs:
    """Inputs of layers, saved to disk because together they may exceed memory."""

    folder: Path
    batches: int

    def put(self, batch: int, name: str, values: NDArray[Any]) -> None:
        np.save(self._path(batch, name), values)

    def get(self, batch: int, name: str) -> NDArray[Any]:
        values: NDArray[Any] = np.load(self._path(batch, name), allow_pickle=False)
        return values

    def _path(self, batch: int, name: str) -> Path:
        return self.folder / f"{batch}-{digest({'name': name})}.npy"


def _watch(
    watched: _Exposed,
    path: Path,
    batches: Sequence[Inputs],
    saved: _SavedInputs,
    threads: int | None,
) -> dict[str, float]:
    """Run the exposed graph on every batch, save layers' inputs, and return every node's peak."""
    peaks = dict.fromkeys(watched.made_by.values(), 0.0)
    inputs = sorted({str(value.name) for layer in watched.layers for value in layer.inputs})
    with load(path, threads=threads, in_order=True) as session:
        for number, batch in enumerate(batches):
            values = _run(session, batch, [*watched.made_by, *inputs])
            for name, node in watched.made_by.items():
                peaks[node] = float(np.maximum(peaks[node], values[name].max(initial=0.0)))
            for name in inputs:
                saved.put(number, name, values.pop(name))
    return peaks


def _layer_statistics(
    path: Path, watched: Sequence[Layer], saved: _SavedInputs, folder: Path, step: Step
) -> dict[str, dict[str, float]]:
    """Return ranges and noise by layer; write moments into the folder."""
    ranges: dict[str, float] = {}
    noise: dict[str, float] = {}
    runs: dict[str, list[str]] = {}
    alike = _alike(watched)
    done = 0
    with archive(folder / MOMENTS) as put:
        views = in_order(lambda group: _viewed(group, saved), alike, threads_for_layers(watched))
        for place, view in enumerate(views):
            view.refuse_infinite(path)
            for layer in view.layers:
                step(done, len(watched))
                done += 1
                ranges[layer.name], noise[layer.name] = view.range, view.noise(layer)
            for run, moment in enumerate(view.moments):
                name = f"{place}.{run}"
                put(name, moment.lower)
                for layer in view.layers:
                    runs.setdefault(layer.name, []).append(name)
    (folder / "moments.json").write_text(json.dumps(runs, indent=1))
    return {"ranges": ranges, "noise": noise}


def _alike(watched: Sequence[Layer]) -> list[list[Layer]]:
    """The layers whose statistics are the same: matrices with the same inputs.

    Queries, keys and values are such layers, and all projections of one text.
    """
    groups: dict[Any, list[Layer]] = {}
    for layer in watched:
        is_matrix = layer.kind is LayerKind.MATRIX
        key = (layer.inputs, layer.summed) if is_matrix else layer.name
        groups.setdefault(key, []).append(layer)
    return list(groups.values())


def _viewed(layers: Sequence[Layer], saved: _SavedInputs) -> InputStatistics:
    """The statistics of the inputs of layers that are alike, over all batches."""
    view = InputStatistics(layers)
    for number in range(saved.batches):
        view.add({name: saved.get(number, name) for name in view.seen_as})
    return view


def _run(session: OrtSession, batch: Inputs, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return these values for a batch: outputs of the graph, or its own inputs."""
    computed = [name for name in names if name not in batch]
    outputs = session.run(batch, computed) if computed else {}
    return {**outputs, **{name: np.asarray(batch[name]) for name in names if name in batch}}


@dataclass(frozen=True)
class _Exposed:
    """A graph written with additional outputs.

    Attributes:
        made_by: names of nodes, by the output with their largest magnitude.
        layers: layers whose inputs are outputs.
    """

    made_by: Mapping[str, str]
    layers: Sequence[Layer]


def _expose(path: Path, target: Path) -> _Exposed:
    """Write a graph with each layer's input and each node's largest magnitude as outputs."""
    model = read(path)
    require_observable(model)
    watched = [layer for layer in layers(model) if layer.kind is not LayerKind.TABLE]
    made_by = _expose_magnitudes(model)
    outputs = model.graph.outputs
    original_outputs = set(outputs)
    for value in dict.fromkeys(value for layer in watched for value in layer.inputs):
        if value not in original_outputs and not value.is_graph_input():
            value.dtype = ir.DataType.FLOAT
            outputs.append(value)
    data = f"{target.name}.data"
    ir.save(model, target, external_data=data, size_threshold_bytes=EXTERNAL_FROM_BYTES)
    return _Exposed(made_by, watched)


def _expose_magnitudes(model: ir.Model) -> dict[str, str]:
    """Add an output with each node's largest magnitude; return the nodes' names by output."""
    graph = model.graph
    floats = [(value, node) for node in graph for value in node.outputs if _is_float(value)]
    limits = [ir.Value(name=n, const_value=ir.tensor(np.float32(v))) for n, v in LIMITS.items()]
    for limit in limits:
        graph.register_initializer(limit)
    made_by = {}
    for value, maker in floats:
        size = ir.node("Abs", [value])
        is_number = ir.node("Less", [size.outputs[0], limits[0]])
        unmasked = ir.node("Where", [is_number.outputs[0], size.outputs[0], limits[1]])
        most = ir.Value(name=f"{value.name}_most", type=value.type, shape=ir.Shape([]))
        reduced = ir.node("ReduceMax", [unmasked.outputs[0]], {"keepdims": 0}, outputs=[most])
        # Directly after the node, so that its output need not stay in memory.
        graph.insert_after(maker, [size, is_number, unmasked, reduced])
        graph.outputs.append(most)
        made_by[str(most.name)] = str(maker.name)
    return made_by


def _is_float(value: ir.Value) -> bool:
    """Whether a value is an fp32 tensor, not a sequence of such tensors."""
    return isinstance(value.type, ir.TensorType) and value.dtype is ir.DataType.FLOAT
