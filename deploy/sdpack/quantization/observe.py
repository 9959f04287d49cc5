"""Statistics of a graph's activations on real inputs, from one pass over the batches.

    moments   second moments of each layer's inputs; weights of its rounding errors
    ranges    range of each layer's input; determines its int8 scale
    extent    the largest magnitude anywhere; fp16 must be able to represent it

The range of a tensor is its clipping threshold (`clipping`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.engines.onnxruntime import OrtSession, load
from sdpack.errors import QuantizationError
from sdpack.progress import Step, unheard
from sdpack.quantization.archive import archive
from sdpack.quantization.clipping import Counts, best_threshold, bins, histogram, mean_square
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.moment_runs import column_runs, threads_for_layers
from sdpack.quantization.opset import require_observable
from sdpack.quantization.rounding import Moment, moment_of, output_error, sampled_rows
from sdpack.quantization.scratch import reported_as
from sdpack.quantization.threads import in_order
from sdpack.quantization.uses import LayerKind
from sdpack.rewrite.onnx_file import EXTERNAL_FROM_BYTES, read
from sdpack.store.artifacts import digest

OBSERVED_ROWS = 4096  # of a layer's inputs that enter its moments, from one batch
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


def _viewed(layers: Sequence[Layer], saved: _SavedInputs) -> _View:
    """The statistics of the inputs of layers that are alike, over all batches."""
    view = _View(layers)
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


@dataclass
class _View:
    """Statistics of the inputs of layers that are alike, accumulated over batches."""

    layers: Sequence[Layer]
    counts: Counts = field(default_factory=lambda: np.zeros(bins()))
    largest: float = 0.0
    rows: int = 0
    finite: bool = True
    _grams: list[Float64Array] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        """The first layer."""
        return self.layers[0]

    @property
    def seen_as(self) -> list[str]:
        """Names of the inputs."""
        return [str(value.name) for value in self.layer.inputs]

    def add(self, batch: Mapping[str, NDArray[Any]]) -> None:
        """Add one batch of the layer's inputs, by name."""
        for node in self.layer.nodes:
            source = node.inputs[0]
            assert source is not None
            values = batch[str(source.name)].astype(np.float32, copy=False)
            if not np.isfinite(values).all():
                self.finite = False
                return
            self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
            self.counts += histogram(values)
            rows = rows_of(node, values)
            if rows is not None:
                self._count_moments(rows)

    def _count_moments(self, rows: Float32Array) -> None:
        for number, (start, stop) in enumerate(column_runs(self.layer)):
            part = rows[:, start:stop]
            with np.errstate(over="ignore", invalid="ignore"):
                gram = (part.T @ part).astype(np.float64)
            if number == len(self._grams):
                self._grams.append(gram)
            else:
                self._grams[number] += gram
        self.rows += len(rows)

    @cached_property
    def moments(self) -> list[Moment]:
        """Return the moments over all batches; none if squares of inputs overflowed."""
        if not all(np.isfinite(gram.diagonal()).all() for gram in self._grams):
            return []
        return [moment_of(gram, self.rows) for gram in self._grams]

    @cached_property
    def _threshold(self) -> tuple[float, float]:
        return best_threshold(self.counts, self.largest)

    @property
    def range(self) -> float:
        """The clipping threshold."""
        return self._threshold[0]

    def noise(self, layer: Layer) -> float:
        """Return the energy that int8 inputs add to the outputs, relative to the outputs' energy.

        The errors of different inputs are assumed to be uncorrelated; without moments, the inputs
        are, too.
        """
        error = self._threshold[1]
        rows = sampled_rows(layer.matrix())
        squares = float((rows.astype(np.float64) ** 2).sum())
        moments = tuple(self.moments)
        energy = output_error(rows, moments) if moments else squares * mean_square(self.counts)
        return error * squares / energy if 0 < energy < math.inf else 0.0

    def refuse_infinite(self, path: Path) -> None:
        if not self.finite:
            raise QuantizationError(
                f"{path}: the input of {self.layer.name} is not finite on the calibration inputs; "
                "check the checkpoint and the inputs"
            )


def rows_of(node: ir.Node, values: Float32Array) -> Float32Array | None:
    """What one output of a layer is summed over: float32 (at most OBSERVED_ROWS, summed).

    For a convolution, these are the patches under the kernel, in the order of the flattened weight.
    Returns None for convolutions that are grouped, not two-dimensional, or padded by `auto_pad`.
    """
    if node.op_type != "Conv":
        flat = values.reshape(-1, values.shape[-1])
        return flat[_sample(len(flat))]
    weight = node.inputs[1]
    assert weight is not None
    tensor = weight.const_value
    assert tensor is not None
    kernel = tuple(tensor.shape.numpy())[2:]
    grouped = node.attributes.get_int("group", 1) != 1
    if grouped or len(kernel) != 2 or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    strides = _ints(node, "strides", (1, 1))
    dilations = _ints(node, "dilations", (1, 1))
    top, left, bottom, right = _ints(node, "pads", (0, 0, 0, 0))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    height, width = windows.shape[2:4]
    chosen = _sample(len(values) * height * width)
    image, place = np.divmod(chosen, height * width)
    row, column = np.divmod(place, width)
    return windows[image, :, row, column].reshape(len(chosen), -1)


def _sample(count: int) -> NDArray[np.intp]:
    """The indices of OBSERVED_ROWS of this many rows, always the same; all if there are fewer."""
    if count <= OBSERVED_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, OBSERVED_ROWS, replace=False))


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints(name, default) or default)
