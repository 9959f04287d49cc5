"""A part in a precision: which steps lead from its fp32 graph there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from sdpack.domain.precision import Precision
from sdpack.errors import QuantizationError
from sdpack.quantization.folding import keep_narrow
from sdpack.quantization.half import to_half
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.lowering import round_inputs, store
from sdpack.quantization.opset import require_opset
from sdpack.quantization.rounded_weights import Rounder
from sdpack.quantization.schemes import UNIFORM, Abilities, Scheme, suited
from sdpack.rewrite.onnx_file import read

HALVES = {Precision.FP16: ir.DataType.FLOAT16, Precision.BF16: ir.DataType.BFLOAT16}
Schemes = Mapping[str, Scheme]
"""How layers should be stored, by name; those not named stay as they are computed."""


def uniform_schemes(
    found: Sequence[Layer], scheme: Scheme | None, uneven: Set[str], keep: Set[str] = frozenset()
) -> dict[str, Scheme]:
    """How each layer of a graph should be stored when all of it has one precision.

    Args:
        scheme: None where layers stay as they are computed.
        uneven: names of layers whose inputs are not for int8: it is their weights' alone.
        keep: names of layers to leave as they are computed.
    """
    if scheme is None:
        return {}
    alone = replace(scheme, inputs=False)
    spared = uneven if scheme == UNIFORM[Precision.INT8] else frozenset()
    return {x.name: alone if x.name in spared else scheme for x in found if x.name not in keep}


def make_variant(
    path: Path,
    schemes: Schemes,
    computed_in: Precision,
    abilities: Abilities,
    rounded: Rounder,
    ranges: Mapping[str, float] | None = None,
    fp32_nodes: Set[str] = frozenset(),
) -> ir.Model:
    """The fp32 graph at `path` with its layers stored so, its arithmetic in `computed_in`.

    Weights are rounded when the graph is written.

    Args:
        rounded: gives a layer's weight in a scheme, its scales of `scale_type(computed_in)`.
        ranges: of layers' inputs, by layer (`observe`).
        fp32_nodes: names of nodes that compute in fp32 whatever `computed_in` is.

    Raises:
        QuantizationError: the graph is quantized already or too old, a scheme names a layer it
            does not have, or rounds inputs whose ranges were not observed.
    """
    model = read(path)
    found = layers(model)
    chosen = suited_schemes(path, found, schemes, abilities)
    require_opset(model, [scheme for _, scheme in chosen.values()])
    round_inputs(model, chosen, ranges or {})
    for layer, scheme in chosen.values():
        store(model, layer, scheme, partial(rounded, layer, scheme), abilities)
    for layer in found:
        if layer.name not in chosen:
            keep_narrow(model, layer.weight)
    if computed_in in HALVES:
        to_half(model, fp32_nodes, HALVES[computed_in])
    model.graph.sort()
    return model


def suited_schemes(
    path: Path, found: Sequence[Layer], schemes: Schemes, abilities: Abilities
) -> dict[str, tuple[Layer, Scheme]]:
    """The layers of a graph that are to be stored in a scheme, each as it can have it.

    Raises:
        QuantizationError: there is no such layer.
    """
    by_name = {layer.name: layer for layer in found}
    strangers = sorted(schemes.keys() - by_name.keys())
    if strangers:
        raise QuantizationError(f"{path} has no layer {strangers[0]}; check the names")
    had = {name: suited(by_name[name], scheme, abilities) for name, scheme in schemes.items()}
    return {name: (by_name[name], scheme) for name, scheme in had.items() if scheme is not None}


def scale_type(computed_in: Precision) -> np.dtype[np.floating]:
    """What scales are stored in where arithmetic is of that type."""
    half: np.dtype[np.floating] = np.dtype(np.float16)
    return half if computed_in is Precision.FP16 else np.dtype(np.float32)
