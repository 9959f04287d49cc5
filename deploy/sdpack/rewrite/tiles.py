"""Splitting of a decoder into two graphs, for decoding large images in tiles without seams.

    latent_sample -> stem -> features -> tail -> sample

The stem ends at the second-to-last upsampling. It contains the attention, processes the whole
image, is small, and runs once. The tail needs nearly all of the memory, but each pixel depends only
on a few neighbours. A tile that includes enough pixels beyond its border is therefore decoded
exactly like the whole image, provided that it is normalized like the whole image. The statistics of
group normalizations are thus inputs of the tail, and those of a tile's core are an output, which
`sdpack.runtime.tiling` combines.

    features  float32 (B, C, rows, columns)
    core      float32 (1, 1, rows, columns): 1 for the pixels of a tile's core, 0 for its halo
    given     float32 (B, norms, 2, groups): means and variances to normalize with
    shared    float32 (1,): 1 to normalize with `given`; 0 to normalize with the statistics of the
              core, and `given` must then be zeros
    sample    float32 (B, 3, s rows, s columns)
    found     float32 (B, norms, 2, groups): means and variances of the core

Without normalizations, a tail has none of `core`, `given`, `shared` and `found`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from sdpack.domain.latents import COLOURS
from sdpack.domain.tiles import FEATURES, LATENTS, PICTURES, STEM_FILE, TAIL_FILE, Split
from sdpack.rewrite.norms import (
    COLUMN_AXIS,
    FLOAT_TYPE,
    NORM,
    ROW_AXIS,
    input_value,
    share_statistics,
)
from sdpack.rewrite.onnx_file import read, write_beside
from sdpack.rewrite.writer import input_of, shape_of, sizes_of

REPEATING = ("nearest", "floor", "asymmetric")  # how a Resize repeats pixels
# Operators whose every output element depends on the input elements at the same place alone.
POINTWISE = frozenset(
    {"Add", "Cast", "Clip", "DequantizeLinear", "Div", "Elu", "Erf", "Gelu", "HardSwish"}
    | {"Identity", "LeakyRelu", "Max", "Min", "Mul", "QuantizeLinear", "Relu", "Sigmoid", "Sub"}
    | {"Swish", "Tanh"}
)


@dataclass(frozen=True)
class _Reach:
    """The receptive field of a tensor's pixels in the starting tensor.

    Attributes:
        scale: pixels per pixel of the starting tensor, along one side.
        radius: radius of the receptive field, in pixels of the starting tensor.
    """

    scale: int
    radius: Fraction


class _EntangledError(Exception):
    """A tensor's receptive field is not local, or unknown."""


def write_split(graph: Path) -> Split | None:
    """Write a decoder's stem and tail beside its graph; they share its weights.

    Returns:
        The numbers needed to run them; None if the decoder cannot be split, and nothing is written.
    """
    stem, tail = read(graph), read(graph)
    cut = _cut(stem)
    if cut is None:
        return None
    try:
        split = _split(stem, tail, cut)
    except _EntangledError:
        return None
    write_beside(stem, graph.with_name(STEM_FILE))
    write_beside(tail, graph.with_name(TAIL_FILE))
    return split


def _cut(model: ir.Model) -> str | None:
    """Return the name of the tensor between stem and tail: input of the second-to-last Resize."""
    enlarged = [input_of(node, 0) for node in model.graph if node.op_type == "Resize"]
    if len(enlarged) < 2 or [str(v.name) for v in model.graph.inputs] != [LATENTS]:
        return None
    cut = enlarged[-2]
    return None if cut.producer() is None else str(cut.name)


def _split(stem: ir.Model, tail: ir.Model, cut: str) -> Split:
    """Reduce two copies of a graph to its stem and its tail, in place.

    Raises:
        _EntangledError: the tail needs other values of the stem than `cut`, or is not local.
    """
    factor = _reaches(stem, LATENTS, cut, strict=False)[cut].scale
    channels = sizes_of(_named(stem, cut))[1]
    if not isinstance(channels, int):
        raise _EntangledError
    _end_at(stem, cut)
    _begin_at(tail, cut, channels)
    reaches = _reaches(tail, FEATURES, PICTURES, strict=True)
    norms = [node for node in tail.graph if node.op_type == NORM]
    groups = {norm.attributes.get_int("num_groups", 0) for norm in norms}
    if len(groups) > 1:
        raise _EntangledError
    if norms:
        scales = [reaches[str(input_of(norm, 0).name)].scale for norm in norms]
        share_statistics(tail, norms, scales)
    _infer(tail, reaches[PICTURES].scale)
    halo = math.ceil(reaches[PICTURES].radius)
    return Split(channels, factor, halo, len(norms), next(iter(groups), 0))


def _named(model: ir.Model, name: str) -> ir.Value:
    return next(v for node in model.graph for v in node.outputs if v.name == name)


def _end_at(model: ir.Model, cut: str) -> None:
    """Make `cut`, renamed to `features`, the only output of the graph."""
    value = _named(model, cut)
    maker = value.producer()
    assert maker is not None
    sizes = sizes_of(value)
    features = ir.node("Cast", [value], {"to": FLOAT_TYPE}, name=FEATURES)
    (output,) = features.outputs
    output.name, output.type, output.shape = FEATURES, ir.TensorType(FLOAT_TYPE), shape_of(sizes)
    model.graph.insert_after(maker, features)
    model.graph.outputs[:] = [output]
    RemoveUnusedNodesPass()(model)


def _begin_at(model: ir.Model, cut: str, channels: int) -> None:
    """Replace `cut` by the input `features`.

    Raises:
        _EntangledError: the graph still needs the latents.
    """
    graph, value = model.graph, _named(model, cut)
    features = input_value(FEATURES, ("batch", channels, ROW_AXIS, COLUMN_AXIS))
    cast = ir.node("Cast", [features], {"to": value.dtype}, name=f"{FEATURES}_cast")
    (cast_features,) = cast.outputs
    cast_features.name, cast_features.type = f"{FEATURES}_cast", value.type
    graph.insert_before(next(iter(graph)), cast)
    value.replace_all_uses_with(cast_features)
    graph.inputs.append(features)
    RemoveUnusedNodesPass()(model)
    latents = graph.inputs.pop(0)
    if latents.uses():
        raise _EntangledError


def _infer(model: ir.Model, scale: int) -> None:
    """Infer symbolic sizes in terms of the features' rows and columns instead of the latents'.

    Args:
        model: the tail.
        scale: image pixels per feature pixel, along one side.
    """
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output() or value.name == PICTURES:
                value.shape = None
    (pictures,) = (value for value in model.graph.outputs if value.name == PICTURES)
    ShapeInferencePass(data_prop=True)(model)
    channels = sizes_of(pictures)[1:2] or (COLOURS,)
    pictures.shape = ir.Shape(["batch", *channels, f"{scale}*{ROW_AXIS}", f"{scale}*{COLUMN_AXIS}"])


def _reaches(model: ir.Model, start: str, end: str, strict: bool) -> dict[str, _Reach]:
    """Return the receptive field of every tensor between `start` and `end`, by name.

    Args:
        model: the graph.
        start: name of the starting tensor.
        end: name of the last tensor.
        strict: whether radii must be known; otherwise only scales are.

    Raises:
        _EntangledError: a receptive field or a scale is unknown.
    """
    reaches = {start: _Reach(1, Fraction(0))}
    for node in model.graph:
        names = [str(value.name) for value in node.inputs if value is not None]
        inputs = [reaches[name] for name in names if name in reaches]
        if inputs:
            reach = _reach(node, inputs, strict)
            reaches |= {str(value.name): reach for value in node.outputs}
        if end in reaches:
            return reaches
    raise _EntangledError


def _reach(node: ir.Node, inputs: Sequence[_Reach], strict: bool) -> _Reach:
    """Return the receptive field of a node's outputs, given those of its inputs."""
    widest = max(inputs, key=lambda reach: reach.radius)
    scales = {reach.scale for reach in inputs}
    if node.op_type == "Resize":
        return _Reach(widest.scale * _enlargement(node), widest.radius)
    if not strict:
        return _Reach(max(scales), widest.radius)
    if len(scales) != 1 or node.domain not in ("", "ai.onnx"):
        raise _EntangledError
    if node.op_type == "Conv":
        return _Reach(widest.scale, widest.radius + Fraction(_kernel_radius(node), widest.scale))
    if node.op_type == NORM or node.op_type in POINTWISE:
        return widest
    raise _EntangledError


def _enlargement(resize: ir.Node) -> int:
    """Return the factor of a Resize that repeats pixels.

    Raises:
        _EntangledError: it does something else.
    """
    scales = (
        ir.convenience.get_const_tensor(input_of(resize, 2)) if len(resize.inputs) > 2 else None
    )
    factors = [] if scales is None else [float(scale) for scale in scales.numpy()]
    kinds = ("mode", "nearest_mode", "coordinate_transformation_mode")
    modes = tuple(resize.attributes.get_string(kind, "") for kind in kinds)
    is_uniform = len(factors) == 4 and factors[:2] == [1, 1] and factors[2] == factors[3]
    if not is_uniform or factors[2] != int(factors[2]) or modes != REPEATING:
        raise _EntangledError
    return int(factors[2])


def _kernel_radius(conv: ir.Node) -> int:
    """Return the number of neighbours on each side that a convolution reads.

    Raises:
        _EntangledError: the convolution changes the size, or is not square.
    """
    attributes = conv.attributes
    kernel = attributes.get_ints("kernel_shape", ()) or sizes_of(input_of(conv, 1))[2:]
    dilations = attributes.get_ints("dilations", (1, 1))
    strides, pads = attributes.get_ints("strides", (1, 1)), attributes.get_ints("pads", (0,) * 4)
    extents = {(int(k) - 1) * d for k, d in zip(kernel, dilations, strict=True)}
    extent = extents.pop()
    if extents or extent % 2 or set(strides) != {1} or set(pads) != {extent // 2}:
        raise _EntangledError
    return extent // 2
