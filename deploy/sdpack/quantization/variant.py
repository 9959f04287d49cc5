"""Variants: a part's fp32 graph converted to a precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
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
"""Schemes of layers, by name; other layers are not quantized."""


@dataclass(frozen=True)
class LayerQuantization:
    """How the layers of a graph are quantized.

    Attributes:
        schemes: schemes of layers, by name.
        rounded: rounds a layer in a scheme, with scales of type `scale_type` of the compute type.
        ranges: ranges of layers' inputs, by layer (`observe`).
    """

    schemes: Schemes
    rounded: Rounder
    ranges: Mapping[str, float] = field(default_factory=dict)


def uniform_schemes(
    graph_layers: Sequence[Layer],
    scheme: Scheme | None,
    uneven: Set[str],
    keep: Set[str] = frozenset(),
) -> dict[str, Scheme]:
    """Return the scheme of each layer in a uniform precision.

    Args:
        graph_layers: the graph's layers.
        scheme: the precision's scheme; None if it does not quantize layers.
        uneven: names of layers that get int8 weights but keep unrounded inputs.
        keep: names of layers to leave unquantized.
    """
    if scheme is None:
        return {}
    alone = replace(scheme, inputs=False)
    spared = uneven if scheme == UNIFORM[Precision.INT8] else frozenset()
    return {
        x.name: alone if x.name in spared else scheme for x in graph_layers if x.name not in keep
    }


def make_variant(
    path: Path,
    quantization: LayerQuantization,
    computed_in: Precision,
    abilities: Abilities,
    fp32_nodes: Set[str] = frozenset(),
) -> ir.Model:
    """Convert an fp32 graph to quantized layers and arithmetic in `computed_in`.

    Weights are rounded when the graph is written.

    Args:
        path: the fp32 graph.
        quantization: how its layers are quantized.
        computed_in: compute type.
        abilities: abilities of the target runtime.
        fp32_nodes: names of nodes that compute in fp32 regardless of `computed_in`.

    Raises:
        QuantizationError: the graph is already quantized, its opset is too old, or a scheme names
            an unknown layer or rounds inputs whose range was not observed.
    """
    model = read(path)
    model_layers = layers(model)
    chosen = suited_schemes(path, model_layers, quantization.schemes, abilities)
    require_opset(model, [scheme for _, scheme in chosen.values()])
    round_inputs(model, chosen, quantization.ranges)
    for layer, scheme in chosen.values():
        store(model, layer, scheme, partial(quantization.rounded, layer, scheme), abilities)
    for layer in model_layers:
        if layer.name not in chosen:
            keep_narrow(model, layer.weight)
    if computed_in in HALVES:
        to_half(model, fp32_nodes, HALVES[computed_in])
    model.graph.sort()
    return model


def suited_schemes(
    path: Path, graph_layers: Sequence[Layer], schemes: Schemes, abilities: Abilities
) -> dict[str, tuple[Layer, Scheme]]:
    """Return the layers to quantize, each with its scheme adapted to layer and runtime.

    Raises:
        QuantizationError: a scheme names an unknown layer.
    """
    by_name = {layer.name: layer for layer in graph_layers}
    unknown = sorted(schemes.keys() - by_name.keys())
    if unknown:
        raise QuantizationError(f"{path} has no layer {unknown[0]}; check the names")
    adapted = {name: suited(by_name[name], scheme, abilities) for name, scheme in schemes.items()}
    return {name: (by_name[name], scheme) for name, scheme in adapted.items() if scheme is not None}


def scale_type(computed_in: Precision) -> np.dtype[np.floating]:
    """Return the dtype of scales for a compute type."""
    half: np.dtype[np.floating] = np.dtype(np.float16)
    return half if computed_in is Precision.FP16 else np.dtype(np.float32)
