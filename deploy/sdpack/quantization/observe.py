"""What flows through a graph on real inputs, seen in one pass over them.

    moments   second moments of what each layer sums over: what its rounding errors are weighed by
    ranges    of each layer's input: what int8 scales by
    extent    the largest magnitude anywhere: what fp16 must hold

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
from numpy.typing import NDArray

from sdpack.domain.arrays import Float32Array, Float64Array
from sdpack.engines.onnxruntime import OrtSession, load
from sdpack.errors import QuantizationError
from sdpack.progress import Step, unheard
from sdpack.quantization.archive import archive
from sdpack.quantization.clipping import Counts, best_threshold, bins, histogram, mean_square
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.opset import require_observable
from sdpack.quantization.rounding import Moment, moment_of, output_error, sampled_rows
from sdpack.quantization.scratch import told_of
from sdpack.quantization.uses import LayerKind
from sdpack.rewrite.onnx_file import EXTERNAL_FROM_BYTES, read
from sdpack.store.artifacts import digest

FEWEST_COLUMNS_TO_CUT = 4608  # above that a layer's moments are kept for runs of columns
RUN = 1152  # columns at most, then; 128 channels of a 3x3 convolution
OBSERVED_ROWS = 4096  # of a layer's inputs that enter its moments, from one batch
MOMENTS = "moments.npz"
SEEN_FOLDER = "seen"
LIMITS = {"sdpack_masked_from": 1e30, "sdpack_nothing": 0.0}

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Extent:
    """The largest magnitude any activation of a graph reached, and the node that made it.

    Magnitudes of 1e30 and more are those of masks, which say "never" in any type, and not counted.
    """

    largest: float
    node: str


@dataclass(frozen=True)
class Observed:
    """What was seen of one graph; moments are read from the disk when they are asked for.

    Attributes:
        ranges: clipping thresholds of layers' inputs, by layer.
        noise: the energy that rounding those inputs to int8 adds to each layer's outputs, as a
            share of what they have.
        peaks: the largest magnitude each node made, by node.
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
        """Names of a layer's moments in the archive."""
        return dict(json.loads((self.folder / "moments.json").read_text()))

    def moments(self, layer: str) -> tuple[Moment, ...] | None:
        """Of what a layer sums over, in consecutive runs of columns; None where not known."""
        names = self._runs.get(layer)
        if names is None:
            return None
        with np.load(self.folder / MOMENTS) as found:
            return tuple(Moment(found[name]) for name in names)


def read_observed(folder: Path) -> Observed:
    """What `observe` has written."""
    found = json.loads((folder / "activations.json").read_text())
    return Observed(folder, found["ranges"], found["noise"], found["peaks"])


def observe(
    path: Path,
    batches: Sequence[Inputs],
    folder: Path,
    threads: int | None = None,
    step: Step = unheard,
) -> Observed:
    """See what flows through the graph at `path`, and write it into `folder`.

    Args:
        batches: real inputs of the graph.
        step: told of layers, once the graph has run.

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
        kept = _Kept(scratch, len(batches))
        with told_of(path, scratch / path.name):
            peaks = _watch(watched, scratch / path.name, batches, kept, threads)
        found = _looked_at(path, watched.layers, kept, folder, step)
    finally:
        shutil.rmtree(scratch)
    whole = {**found, "peaks": peaks}
    (folder / "activations.json").write_text(json.dumps(whole, indent=1))
    return Observed(folder, **whole)


@dataclass(frozen=True)
class _Kept:
    """What layers were given, on the disk: all of it at once is more than memory holds."""

    folder: Path
    batches: int

    def put(self, batch: int, name: str, values: NDArray[Any]) -> None:
        np.save(self._path(batch, name), values)

    def get(self, batch: int, name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(self._path(batch, name), allow_pickle=False)
        return found

    def _path(self, batch: int, name: str) -> Path:
        return self.folder / f"{batch}-{digest({'name': name})}.npy"


def _watch(
    watched: _Exposed, path: Path, batches: Sequence[Inputs], kept: _Kept, threads: int | None
) -> dict[str, float]:
    """Run the exposed graph once on every batch; returns the peak of every node."""
    peaks = dict.fromkeys(watched.made_by.values(), 0.0)
    inputs = sorted({str(value.name) for layer in watched.layers for value in layer.inputs})
    with load(path, threads=threads, in_order=True) as session:
        for number, batch in enumerate(batches):
            seen = _some(session, batch, [*watched.made_by, *inputs])
            for name, node in watched.made_by.items():
                peaks[node] = float(np.maximum(peaks[node], seen[name].max(initial=0.0)))
            for name in inputs:
                kept.put(number, name, seen.pop(name))
    return peaks


def _looked_at(
    path: Path, found: Sequence[Layer], kept: _Kept, folder: Path, step: Step
) -> dict[str, dict[str, float]]:
    """Ranges and noise by layer; moments are written into `folder`, a layer at a time."""
    ranges: dict[str, float] = {}
    noise: dict[str, float] = {}
    runs: dict[str, list[str]] = {}
    with archive(folder / MOMENTS) as put:
        for place, layer in enumerate(found):
            step(place, len(found))
            view = _View(layer)
            for number in range(kept.batches):
                view.add({name: kept.get(number, name) for name in view.seen_as})
            view.refuse_infinite(path)
            ranges[view.name], noise[view.name] = view.range(), view.noise()
            for place, moment in enumerate(view.moments()):
                name = f"{len(ranges) - 1}.{place}"
                runs.setdefault(view.name, []).append(name)
                put(name, moment.lower)
    (folder / "moments.json").write_text(json.dumps(runs, indent=1))
    return {"ranges": ranges, "noise": noise}


def _runs(layer: Layer) -> list[tuple[int, int]]:
    """Runs of columns whose moments are kept: all of them, or where there are many in pieces."""
    if layer.summed <= FEWEST_COLUMNS_TO_CUT:
        return [(0, layer.summed)]
    kernel = int(np.prod(layer.shape[2:])) or 1
    step = max(1, RUN // kernel) * kernel
    starts = range(0, layer.summed, step)
    return [(start, min(start + step, layer.summed)) for start in starts]


def _some(session: OrtSession, batch: Inputs, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """These outputs on a batch; what the caller of a graph gives in, it has already."""
    asked = [name for name in names if name not in batch]
    found = session.run(batch, asked) if asked else {}
    return {**found, **{name: np.asarray(batch[name]) for name in names if name in batch}}


@dataclass(frozen=True)
class _Exposed:
    """A graph written with what is to be seen as outputs: whose magnitudes, and which layers."""

    made_by: Mapping[str, str]
    layers: Sequence[Layer]


def _expose(path: Path, target: Path) -> _Exposed:
    """Write the graph with each layer's input, and each node's largest magnitude, as outputs."""
    model = read(path)
    require_observable(model)
    watched = [layer for layer in layers(model) if layer.kind is not LayerKind.TABLE]
    made_by = _expose_magnitudes(model)
    outputs = set(model.graph.outputs)
    for value in dict.fromkeys(value for layer in watched for value in layer.inputs):
        if value not in outputs and not value.is_graph_input():
            value.dtype = ir.DataType.FLOAT
            model.graph.outputs.append(value)
    data = f"{target.name}.data"
    ir.save(model, target, external_data=data, size_threshold_bytes=EXTERNAL_FROM_BYTES)
    return _Exposed(made_by, watched)


def _expose_magnitudes(model: ir.Model) -> dict[str, str]:
    """Names of nodes by that of an output with the largest magnitude each of them makes."""
    made = [(value, node) for node in model.graph for value in node.outputs if _is_float(value)]
    limits = [ir.Value(name=n, const_value=ir.tensor(np.float32(v))) for n, v in LIMITS.items()]
    for limit in limits:
        model.graph.register_initializer(limit)
    made_by = {}
    for value, maker in made:
        size = ir.node("Abs", [value])
        is_number = ir.node("Less", [size.outputs[0], limits[0]])
        kept = ir.node("Where", [is_number.outputs[0], size.outputs[0], limits[1]])
        most = ir.Value(name=f"{value.name}_most", type=value.type, shape=ir.Shape([]))
        reduced = ir.node("ReduceMax", [kept.outputs[0]], {"keepdims": 0}, outputs=[most])
        # Right behind its maker, so that what was made need not wait for the end of the graph.
        model.graph.insert_after(maker, [size, is_number, kept, reduced])
        model.graph.outputs.append(most)
        made_by[str(most.name)] = str(maker.name)
    return made_by


def _is_float(value: ir.Value) -> bool:
    """Whether it is a tensor of fp32, not a sequence of such tensors."""
    return isinstance(value.type, ir.TensorType) and value.dtype is ir.DataType.FLOAT


@dataclass
class _View:
    """What is seen of one layer's inputs."""

    layer: Layer
    counts: Counts = field(default_factory=lambda: np.zeros(bins()))
    largest: float = 0.0
    rows: int = 0
    finite: bool = True
    _grams: list[Float64Array] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def seen_as(self) -> list[str]:
        """The names of the layer's inputs."""
        return [str(value.name) for value in self.layer.inputs]

    def add(self, seen: Mapping[str, NDArray[Any]]) -> None:
        """Count one batch in."""
        for node in self.layer.nodes:
            source = node.inputs[0]
            assert source is not None
            values = seen[str(source.name)].astype(np.float32, copy=False)
            if not np.isfinite(values).all():
                self.finite = False
                return
            self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
            self.counts += histogram(values)
            rows = rows_of(node, values)
            if rows is not None:
                self._count_moments(rows)

    def _count_moments(self, rows: Float32Array) -> None:
        for number, (start, stop) in enumerate(_runs(self.layer)):
            part = rows[:, start:stop]
            with np.errstate(over="ignore", invalid="ignore"):
                gram = (part.T @ part).astype(np.float64)
            if number == len(self._grams):
                self._grams.append(gram)
            else:
                self._grams[number] += gram
        self.rows += len(rows)

    def moments(self) -> list[Moment]:
        """Over everything seen; none where inputs are so large that their squares overflow."""
        if not all(np.isfinite(gram.diagonal()).all() for gram in self._grams):
            return []
        return [moment_of(gram, self.rows) for gram in self._grams]

    def range(self) -> float:
        """The clipping threshold."""
        return best_threshold(self.counts, self.largest)[0]

    def noise(self) -> float:
        """What rounding to int8 within it adds to the outputs, as a share of their energy.

        The errors of two inputs are taken to have nothing to do with each other. Where moments are
        not known, neither have the inputs.
        """
        error = best_threshold(self.counts, self.largest)[1]
        rows = sampled_rows(self.layer.matrix())
        squares = float((rows.astype(np.float64) ** 2).sum())
        moments = tuple(self.moments())
        energy = output_error(rows, moments) if moments else squares * mean_square(self.counts)
        return error * squares / energy if 0 < energy < math.inf else 0.0

    def refuse_infinite(self, path: Path) -> None:
        if not self.finite:
            raise QuantizationError(
                f"{path}: the input of {self.name} is not finite on the calibration inputs; check "
                "the checkpoint and the inputs"
            )


def rows_of(node: ir.Node, values: Float32Array) -> Float32Array | None:
    """What one output of a layer is summed over: float32 (at most OBSERVED_ROWS, summed).

    Of a convolution, the patches its kernel sees, in the order of the flattened weight; None where
    it is grouped, not in the plane, or padded by a rule.
    """
    if node.op_type != "Conv":
        flat = values.reshape(-1, values.shape[-1])
        return flat[_sample(len(flat))]
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    kernel = tuple(weight.const_value.shape.numpy())[2:]
    grouped = node.attributes.get_int("group", 1) != 1
    if grouped or len(kernel) != 2 or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    strides = _ints(node, "strides", (1, 1))
    dilations = _ints(node, "dilations", (1, 1))
    top, left, bottom, right = _ints(node, "pads", (0, 0, 0, 0))
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    height, width = windows.shape[2:4]
    chosen = _sample(len(values) * height * width)
    picture, place = np.divmod(chosen, height * width)
    row, column = np.divmod(place, width)
    return windows[picture, :, row, column].reshape(len(chosen), -1)


def _sample(count: int) -> NDArray[np.intp]:
    """The indices of OBSERVED_ROWS of this many rows, always the same; all if there are fewer."""
    if count <= OBSERVED_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, OBSERVED_ROWS, replace=False))


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints(name, default) or default)
