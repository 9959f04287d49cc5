"""How much each layer's rounding matters to what its part gives out.

    harm of a layer in a scheme = gain of the layer * error of the scheme

The error is known for every scheme in closed form, from the weight's error and the second moments
of the layer's inputs: the energy added to the layer's outputs, as a share of what they have. The
gain says what becomes of that on the way out. It is measured: the part runs on a few real inputs
with this one weight rounded, all others as they are, or in a part of very many layers with a few
neighbours rounded together. Small errors add up, so that the harm of many layers is the sum of
theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.engines.onnxruntime import load
from sdpack.onnx_file import EXTERNAL_FROM_BYTES, read
from sdpack.quantize.layers import Layer, layers
from sdpack.quantize.observe import Inputs
from sdpack.quantize.rounding import Rounded

Arrays = dict[str, NDArray[np.generic]]
Probe = Callable[[Layer], tuple[Rounded, float] | None]

PROBES = 128  # runs of the part at most
MOST_ROWS = 16  # of a batch
FORWARD = 2**32  # rows times numbers of weights that a run takes at most, or one row a batch


def layer_gains(
    path: Path,
    probe: Probe,
    batches: Sequence[Inputs],
    scratch: Path,
    step: Callable[[str], None] = lambda _: None,
    threads: int | None = None,
) -> dict[str, float]:
    """For each layer, what share of its outputs' error comes out of its part.

    Layers whose rounding changes nothing, or is lost in the noise, have the least gain that was
    seen: they may not count as free.

    Args:
        path: of the part's fp32 graph.
        probe: rounds a layer, and says what share of its outputs' energy that adds to them; the
            layers it gives nothing for are left out.
        batches: a few real inputs.
        scratch: a folder for the graph with its weights as inputs.
        step: told the name of each layer.

    Raises:
        EngineError: the graph does not run.
    """
    found = layers(read(path))
    weights = {str(x.weight.name): _value(x) for x in found}
    model, target = read(path), scratch / path.name
    _open_weights(model)
    data = f"{target.name}.data"
    ir.save(model, target, external_data=data, size_threshold_bytes=EXTERNAL_FROM_BYTES)
    gains: dict[str, float] = {}
    with load(target, threads=threads) as session:

        def outputs(changed: Mapping[str, NDArray[np.generic]]) -> list[Arrays]:
            return [session.run({**weights, **changed, **batch}) for batch in batches]

        wanted = outputs({})
        for group in _groups(found):
            step(group[0].name)
            probed = [(layer, probe(layer)) for layer in group]
            known = [(layer, *made) for layer, made in probed if made is not None]
            rounded = {str(x.weight.name): x.folded(made.values) for x, made, _ in known}
            harm = relative_energy(outputs(rounded), wanted) if known else 0.0
            error = sum(error for _, _, error in known)
            gain = harm / error if error > 0 else 0.0
            gains |= {layer.name: gain for layer, _, _ in known}
    least = min((gain for gain in gains.values() if gain > 0), default=1.0)
    return {name: gain or least for name, gain in gains.items()}


def _groups(found: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Neighbours, at most PROBES groups of them."""
    size = -(-len(found) // PROBES) or 1
    for start in range(0, len(found), size):
        yield found[start : start + size]


def _value(layer: Layer) -> NDArray[np.generic]:
    assert layer.weight.const_value is not None
    return np.ascontiguousarray(layer.weight.const_value.numpy())


def _open_weights(model: ir.Model) -> None:
    """Make inputs of the layers' weights."""
    for layer in layers(model):
        weight = layer.weight
        del model.graph.initializers[str(weight.name)]
        weight.const_value = None
        model.graph.inputs.append(weight)


def relative_energy(seen: Sequence[Arrays], wanted: Sequence[Arrays]) -> float:
    """Energy of the differences, as a share of that of what was wanted, over all outputs."""
    off = whole = 0.0
    for one, other in zip(seen, wanted, strict=True):
        for name, values in other.items():
            reference = values.astype(np.float64)
            off += float(((one[name].astype(np.float64) - reference) ** 2).sum())
            whole += float((reference**2).sum())
    return off / whole if whole else 0.0


def probing_batches(batches: Sequence[Inputs], most: int, parameters: int) -> list[Inputs]:
    """At most so many batches for probes, with fewer rows the larger the graph is.

    Rows at even distances: of a guided batch from both halves.
    """
    chosen = spread(batches, most)
    allowed = min(MOST_ROWS, max(1, FORWARD // (max(1, parameters) * len(chosen))))
    return [_some_rows(batch, allowed) for batch in chosen]


def _some_rows(batch: Inputs, most: int) -> Inputs:
    rows = max((len(values) for values in batch.values() if values.ndim), default=1)
    step = -(-rows // most)
    return {
        name: values[::step] if values.ndim and len(values) == rows else values
        for name, values in batch.items()
    }


def spread(batches: Sequence[Inputs], most: int) -> list[Inputs]:
    """At most so many of them, at even distances."""
    places = np.linspace(0, len(batches) - 1, min(most, len(batches))).round()
    return [batches[int(place)] for place in places]
