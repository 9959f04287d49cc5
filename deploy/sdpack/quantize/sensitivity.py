"""How much each layer's rounding matters to what its part gives out.

    harm of a layer in a scheme = gain of the layer * error of the scheme

The error is known for every scheme in closed form, from the weight's error and the second moments
of the layer's inputs: the energy added to the layer's outputs, as a share of what they have. The
gain says what becomes of that on the way out. It is measured once a layer: the part runs on a few
real inputs with this one weight rounded, all others as they are. Small errors add up, so that the
harm of many layers is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sdpack.engines.onnxruntime import load
from sdpack.onnx_file import EXTERNAL_FROM_BYTES, read
from sdpack.quantize.bank import Bank
from sdpack.quantize.layers import Layer, layers
from sdpack.quantize.observe import Inputs

Arrays = dict[str, NDArray[np.generic]]


def layer_harms(
    path: Path,
    bank: Bank,
    batches: Sequence[Inputs],
    scratch: Path,
    step: Callable[[str], None] = lambda _: None,
    threads: int | None = None,
) -> dict[str, float]:
    """For each layer, the energy its rounding adds to the part's outputs, as a share of theirs.

    Args:
        path: of the part's fp32 graph.
        bank: of its layers, rounded; those not in it are left out.
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
    with load(target, threads=threads) as session:

        def outputs(changed: Mapping[str, NDArray[np.generic]]) -> list[Arrays]:
            return [session.run({**weights, **changed, **batch}) for batch in batches]

        wanted = outputs({})
        harms = {}
        for layer in found:
            if layer.name not in bank.layers:
                continue
            step(layer.name)
            rounded = layer.folded(bank.rounded(layer.name).values)
            seen = outputs({str(layer.weight.name): rounded})
            harms[layer.name] = relative_energy(seen, wanted)
    return harms


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


def gains(harms: Mapping[str, float], errors: Mapping[str, float]) -> dict[str, float]:
    """What of a layer's error comes out of its part, by layer.

    A layer that its rounding does not change, or whose error is lost in the noise, has the least
    gain that was seen: it may not count as free.
    """
    found = {n: harms[n] / errors[n] for n in harms if errors.get(n, 0.0) > 0 and harms[n] > 0}
    least = min(found.values(), default=1.0)
    return {name: found.get(name, least) for name in harms}
