"""Sensitivity of a part's output to the rounding of each layer.

    harm of a layer in a scheme = gain of the layer * error of the scheme

The error of a scheme has a closed form in the weight's error and the second moments of the layer's
inputs: the energy added to the layer's outputs, relative to their energy. The gain is the share of
this error that reaches the part's output. It is measured by running the part on a few real inputs
with only this weight rounded (in a part of very many layers, with a few neighbours rounded
together). Small errors add up, so the harm of several layers is the sum of theirs.

Errors of a layer's inputs propagate in the same way, so the gain also identifies the layers that do
not tolerate int8 inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.domain.finite import broken_words
from sdpack.domain.precision import Precision
from sdpack.domain.workload import WORKLOAD
from sdpack.engines.onnxruntime import load
from sdpack.errors import QuantizationError
from sdpack.progress import Step, unheard
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.observe import Inputs, Observed
from sdpack.quantization.probing import (
    BATCHES,
    FEWEST_GROUPS,
    FORWARD,
    MOST_PROBES,
    MOST_ROWS,
    MOST_WORK,
    most_probes,
)
from sdpack.quantization.rounded_weights import relative_error
from sdpack.quantization.rounding import Rounded, round_weight
from sdpack.quantization.schemes import UNIFORM, Abilities, suited
from sdpack.quantization.scratch import reported_as
from sdpack.rewrite.onnx_file import EXTERNAL_FROM_BYTES, read

Arrays = dict[str, NDArray[np.generic]]
Item = TypeVar("Item")
Probe = Callable[[Layer], tuple[Rounded, float] | None]

PROBE_SCHEME = UNIFORM[Precision.W4]
HARM = 1e-3  # of a part's output that int8 inputs may do
SPARED = 4  # at most one layer in so many is spared them
PROBING = {
    "rounded": str(PROBE_SCHEME),
    "rows": [MOST_PROBES, BATCHES, MOST_ROWS, FORWARD, WORKLOAD.huge_probed_side],
    "work": [MOST_WORK, FEWEST_GROUPS],
}
"""What gains depend on here."""

_ANY = Abilities(packed_tables=True, packed_attention=True)


@dataclass(frozen=True)
class Shares:
    """Some of a graph's layers: shares of about the same size.

    Attributes:
        numbers: which shares.
        count: of how many.
    """

    numbers: tuple[int, ...] = (0,)
    count: int = 1

    def of_groups(self, groups: Sequence[Sequence[Layer]]) -> list[Sequence[Layer]]:
        """The groups of layers of these shares."""
        return [g for place, g in enumerate(groups) if place % self.count in self.numbers]


ALL = Shares()


def nearest_rounding_gains(
    path: Path,
    observed: Observed,
    batches: Sequence[Inputs],
    scratch: Path,
    step: Step = unheard,
    shares: Shares = ALL,
) -> dict[str, float]:
    """Measure `layer_gains` with weights rounded to nearest, which is fast and close enough.

    Args:
        path: the part's fp32 graph.
        observed: statistics of its activations.
        batches: all its calibration inputs, of which a few rows are used.
        scratch: folder for a temporary graph.
        step: called for each layer.
        shares: the layers to measure.
    """
    numbers = sum(layer.size for layer in layers(read(path)))

    def probe(layer: Layer) -> tuple[Rounded, float] | None:
        scheme = suited(layer, PROBE_SCHEME, _ANY)
        if scheme is None:
            return None
        matrix = layer.matrix()
        rounded = round_weight(matrix, scheme, None, np.dtype(np.float32))
        return rounded, relative_error(matrix, rounded, observed.moments(layer.name))

    return layer_gains(path, probe, probing_batches(batches, numbers), scratch, step, shares)


def uneven(noise: Mapping[str, float], gains: Mapping[str, float]) -> frozenset[str]:
    """Return the layers whose inputs should not be rounded to int8.

    These are the layers with the most harm, until that of all others is below HARM, but at most one
    in SPARED.

    Args:
        noise: noise of each layer's outputs from int8 inputs (`Observed.noise`).
        gains: gains of these layers. A missing one, for example because rounding the layer made
            outputs NaN, counts as the largest.
    """
    most = max(gains.values(), default=1.0)
    harms = {name: share * gains.get(name, most) for name, share in noise.items()}
    spared: set[str] = set()
    remaining = sum(harms.values())
    for name in sorted(harms, key=lambda name: -harms[name])[: -(-len(harms) // SPARED)]:
        if remaining <= HARM:
            break
        spared.add(name)
        remaining -= harms[name]
    return frozenset(spared)


def layer_gains(
    path: Path,
    probe: Probe,
    batches: Sequence[Inputs],
    scratch: Path,
    step: Step = unheard,
    shares: Shares = ALL,
) -> dict[str, float]:
    """Measure the gain of each layer: the share of its outputs' error in the part's output.

    Layers whose rounding makes outputs NaN or infinite get none. The gain of others may be 0; see
    `raised`.

    Args:
        path: the part's fp32 graph.
        probe: rounds a layer, and returns the rounded weight and its relative output error; None
            leaves the layer out.
        batches: a few real inputs.
        scratch: folder for a temporary graph.
        step: called for each layer.
        shares: the layers to measure; the others get no gain.

    Raises:
        EngineError: the graph does not run.
        QuantizationError: an output is not finite on a batch.
    """
    part_layers, target = layers(read(path)), scratch / path.name
    weights = {str(layer.weight.name): _values(layer) for layer in part_layers}
    _write_with_open_weights(path, target)
    gains: dict[str, float] = {}
    with reported_as(path, target), load(target) as session:

        def outputs(rounded: Mapping[str, NDArray[np.generic]]) -> list[Arrays]:
            return [session.run({**weights, **rounded, **batch}) for batch in batches]

        def harm_of(rounded: Arrays) -> float:
            return relative_energy(outputs(rounded), exact_outputs)

        exact_outputs = outputs({})
        _refuse_broken(path, exact_outputs)
        done = 0
        most = most_probes(_work_of(part_layers, batches))
        groups = shares.of_groups(list(_groups(part_layers, most)))
        for group in groups:
            step(done, sum(map(len, groups)))
            done += len(group)
            gains |= _gains_of(group, probe, harm_of)
    return gains


def raised(gains: Mapping[str, float]) -> dict[str, float]:
    """Give layers whose rounding has no measurable effect the smallest gain of all others.

    Otherwise they would count as free.
    """
    least = min((gain for gain in gains.values() if gain > 0), default=1.0)
    return {name: gain or least for name, gain in gains.items()}


def _gains_of(
    group: Sequence[Layer], probe: Probe, harm_of: Callable[[Arrays], float]
) -> dict[str, float]:
    """Return the common gain of layers rounded together; none if outputs are then not finite."""
    weights: Arrays = {}
    errors: dict[str, float] = {}
    for layer in group:
        result = probe(layer)
        if result is not None:
            rounded, errors[layer.name] = result
            weights[str(layer.weight.name)] = layer.folded(rounded.values)
            del result, rounded  # a table of a language model takes gigabytes
    harm = harm_of(weights) if weights else 0.0
    error = sum(errors.values())
    gain = harm / error if error > 0 else 0.0
    return dict.fromkeys(errors, gain) if math.isfinite(gain) else {}


def _refuse_broken(path: Path, outputs_by_batch: Sequence[Arrays]) -> None:
    for outputs in outputs_by_batch:
        for name, values in outputs.items():
            if np.issubdtype(values.dtype, np.inexact) and not np.isfinite(values).all():
                raise QuantizationError(
                    f"{path}: the output {name} is not finite on the calibration inputs "
                    f"({broken_words(values)}); check the inputs and the source of the graph"
                )


def _work_of(part_layers: Sequence[Layer], batches: Sequence[Inputs]) -> float:
    """Return about how many multiplications the batches take: weights times tokens of texts."""
    numbers = sum(layer.size for layer in part_layers)
    return float(numbers * sum(_tokens_of(batch) for batch in batches))


def _tokens_of(batch: Inputs) -> int:
    """Return the number of tokens of a batch's texts: ids (N, T) or states (N, T, width)."""
    counts = [
        math.prod(values.shape[:2])
        for values in batch.values()
        if values.ndim == 3 or (values.ndim == 2 and np.issubdtype(values.dtype, np.integer))
    ]
    return max(counts, default=1)


def _groups(part_layers: Sequence[Layer], most: int) -> Iterator[Sequence[Layer]]:
    """Group neighbouring layers into at most `most` groups."""
    size = -(-len(part_layers) // most) or 1
    for start in range(0, len(part_layers), size):
        yield part_layers[start : start + size]


def _values(layer: Layer) -> NDArray[np.generic]:
    return np.ascontiguousarray(layer.tensor.numpy())


def _write_with_open_weights(path: Path, target: Path) -> None:
    """Write a graph whose layers' weights are inputs."""
    model = read(path)
    graph = model.graph
    for layer in layers(model):
        weight = layer.weight
        del graph.initializers[str(weight.name)]
        weight.const_value = None
        graph.inputs.append(weight)
    data = f"{target.name}.data"
    ir.save(model, target, external_data=data, size_threshold_bytes=EXTERNAL_FROM_BYTES)


def relative_energy(outputs: Sequence[Arrays], references: Sequence[Arrays]) -> float:
    """Return the energy of the differences relative to that of `references`, over all outputs."""
    difference_energy = reference_energy = 0.0
    for batch_outputs, batch_references in zip(outputs, references, strict=True):
        for name, values in batch_references.items():
            reference = values.astype(np.float64)
            difference = batch_outputs[name].astype(np.float64) - reference
            difference_energy += float((difference**2).sum())
            reference_energy += float((reference**2).sum())
    return difference_energy / reference_energy if reference_energy else 0.0


def probing_batches(batches: Sequence[Inputs], numbers: int) -> list[Inputs]:
    """Return a few rows of a few batches; fewer if the graph has more weights.

    Batches and rows are evenly spaced, so that a guided batch contributes rows of both halves. If
    only a single row remains, latents and images are cropped to their centre.

    Args:
        batches: all batches.
        numbers: number of weights of the graph.
    """
    rows = max(1, FORWARD // max(1, numbers))
    chosen = spread(batches, min(BATCHES, rows))
    short = [_some_rows(batch, min(MOST_ROWS, rows // len(chosen))) for batch in chosen]
    return short if rows > 1 else [middle_of(batch, WORKLOAD.huge_probed_side) for batch in short]


def middle_of(batch: Inputs, most: int) -> Inputs:
    """Crop images and latents, (N, C, H, W), to a centre of at most `most` per side."""
    cropped = dict(batch)
    for name, values in batch.items():
        if values.ndim == 4:
            top, left = (max(0, side - most) // 2 for side in values.shape[2:])
            centre = values[:, :, top : top + most, left : left + most]
            cropped[name] = np.ascontiguousarray(centre)
    return cropped


def _some_rows(batch: Inputs, most: int) -> Inputs:
    rows = max((len(values) for values in batch.values() if values.ndim), default=1)
    step = -(-rows // most)
    return {
        name: values[::step] if values.ndim and len(values) == rows else values
        for name, values in batch.items()
    }


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """Return up to `most` evenly spaced items; a single one comes from the middle."""
    count = min(most, len(items))
    if count == 1:
        return [items[len(items) // 2]]
    places = np.linspace(0, len(items) - 1, count).round()
    return [items[int(place)] for place in places]
