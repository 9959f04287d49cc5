"""How large activations get, seen on real inputs: what int8 scales by, and what fp16 must hold.

The range of a tensor is the clipping threshold that makes the mean squared error of its int8
rounding smallest over everything seen: an outlier beyond it is clipped if that costs less than
the coarser steps it would ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.engines.onnxruntime import load
from sdpack.errors import QuantizationError
from sdpack.quantize.weights import LARGEST, weighted_nodes

BINS = 2048
CANDIDATES = 128
LIMITS = {"sdpack_masked_from": 1e30, "sdpack_nothing": 0.0}
Inputs = Mapping[str, NDArray[Any]]
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Extent:
    """The largest magnitude any activation of a graph reached, and the node that made it.

    Magnitudes of 1e30 and more are those of masks, which say "never" in any type, and not counted.
    """

    largest: float
    node: str


def measure_extent(
    path: Path, batches: Sequence[Inputs], scratch: Path, threads: int | None = None
) -> Extent:
    """How large the activations of the graph at `path` get, those between its nodes included.

    Args:
        batches: real inputs of the graph.
        scratch: a folder for the graph with the magnitudes as outputs.

    Raises:
        QuantizationError: there are no batches.
    """
    if not batches:
        raise QuantizationError(f"{path}: no calibration inputs; give at least one batch")
    made_by = _expose_magnitudes(path, scratch / path.name)
    largest = dict.fromkeys(made_by.values(), 0.0)
    with load(scratch / path.name, threads=threads) as session:
        for batch in batches:
            seen = session.run(batch)
            for name, node in made_by.items():
                largest[node] = float(np.maximum(largest[node], seen[name].max()))
    node = max(largest, key=lambda name: largest[name], default="")
    return Extent(largest.get(node, 0.0), node)


def _expose_magnitudes(path: Path, target: Path) -> dict[str, str]:
    """Write the graph with each node's largest magnitude as an output too.

    Returns the name of the node by the name of that output.
    """
    model = ir.load(path)
    made = {str(v.name): str(n.name) for n in model.graph for v in n.outputs if _is_float(v)}
    values = [v for node in model.graph for v in node.outputs if _is_float(v)]
    limits = [ir.Value(name=n, const_value=ir.tensor(np.float32(v))) for n, v in LIMITS.items()]
    for limit in limits:
        model.graph.register_initializer(limit)
    made_by = {}
    for value in values:
        size = ir.node("Abs", [value])
        is_number = ir.node("Less", [size.outputs[0], limits[0]])
        kept = ir.node("Where", [is_number.outputs[0], size.outputs[0], limits[1]])
        most = ir.Value(name=f"{value.name}_most", type=value.type, shape=ir.Shape([]))
        reduced = ir.node("ReduceMax", [kept.outputs[0]], {"keepdims": 0}, outputs=[most])
        model.graph.extend([size, is_number, kept, reduced])
        model.graph.outputs.append(most)
        made_by[str(most.name)] = made[str(value.name)]
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=1024)
    return made_by


def _is_float(value: ir.Value) -> bool:
    return value.dtype is ir.DataType.FLOAT


def measure_ranges(
    path: Path, batches: Sequence[Inputs], scratch: Path, threads: int | None = None
) -> dict[str, float]:
    """The range of the first input of every weighted node of the graph at `path`, by node name.

    Args:
        batches: real inputs of the graph; run twice, for the extent and for the histogram.
        scratch: a folder for the graph with its activations as outputs.

    Raises:
        QuantizationError: there are no batches, or an activation is not finite.
    """
    if not batches:
        raise QuantizationError(f"{path}: no calibration inputs; give at least one batch")
    watched = _expose(path, scratch / path.name)
    names = list(dict.fromkeys(watched.values()))
    with load(scratch / path.name, threads=threads) as session:
        largest = dict.fromkeys(names, 0.0)
        for batch in batches:
            seen = session.run(batch)
            for name in names:
                largest[name] = float(np.maximum(largest[name], np.abs(seen[name]).max()))
        _refuse_infinite(path, largest)
        counts = {name: np.zeros(BINS) for name in names}
        for batch in batches:
            seen = session.run(batch)
            for name in names:
                counts[name] += histogram(seen[name], largest[name])
    ranges = {name: best_threshold(counts[name], largest[name]) for name in names}
    return {node: ranges[value] for node, value in watched.items()}


def _expose(path: Path, target: Path) -> dict[str, str]:
    """Write the graph with the first input of each weighted node as an output too.

    Returns the name of that value by the name of the node.
    """
    model = ir.load(path)
    outputs = set(model.graph.outputs)
    watched = {}
    for weighted in weighted_nodes(model):
        value = weighted.node.inputs[0]
        assert value is not None
        watched[str(weighted.node.name)] = str(value.name)
        if value not in outputs and not value.is_graph_input():
            value.dtype = ir.DataType.FLOAT
            model.graph.outputs.append(value)
            outputs.add(value)
    inputs = {str(v.name) for v in model.graph.inputs} & set(watched.values())
    for name in inputs:
        _copy_input(model, name)
    renamed = {node: f"{v}_seen" if v in inputs else v for node, v in watched.items()}
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=1024)
    return renamed


def _copy_input(model: ir.Model, name: str) -> None:
    """A graph cannot give an input back as an output; its copy it can."""
    source = next(v for v in model.graph.inputs if v.name == name)
    copied = ir.Value(name=f"{name}_seen", type=source.type, shape=source.shape)
    model.graph.append(ir.node("Identity", [source], outputs=[copied], name=f"{name}_copy"))
    model.graph.outputs.append(copied)


def _refuse_infinite(path: Path, largest: Mapping[str, float]) -> None:
    wrong = [name for name, value in largest.items() if not np.isfinite(value)]
    if wrong:
        raise QuantizationError(
            f"{path}: the activation {wrong[0]} is not finite on the calibration inputs; the "
            "checkpoint or its inputs are broken"
        )


def histogram(values: NDArray[Any], largest: float) -> Counts:
    """How many magnitudes fall into each of BINS equal bins of [0, largest]."""
    if largest == 0:
        return np.zeros(BINS)
    found, _ = np.histogram(np.abs(values), bins=BINS, range=(0, largest))
    return found.astype(np.float64)


def best_threshold(counts: Counts, largest: float, levels: int = LARGEST[8]) -> float:
    """The clipping threshold in (0, largest] with the least expected squared error.

    Within a threshold t, rounding to `levels` steps a side costs (t / levels)² / 12 a number;
    beyond it, a number costs the square of what is cut off.
    """
    if largest == 0 or not counts.any():
        return 1.0
    centres = (np.arange(BINS) + 0.5) * largest / BINS
    thresholds = largest * np.arange(1, CANDIDATES + 1) / CANDIDATES
    beyond = np.maximum(0, centres[None, :] - thresholds[:, None]) ** 2
    rounding = (thresholds / levels) ** 2 / 12
    errors = beyond @ counts + rounding * counts.sum()
    return float(thresholds[int(errors.argmin())])
