"""Group normalization with external statistics: tiles are normalized like the whole image.

Adds these inputs to a graph whose own input has (rows, columns) pixels:

    core      float32 (1, 1, rows, columns): 1 for the pixels that count, 0 for the others
    given     float32 (B, norms, 2, groups): means and variances to normalize with
    shared    float32 (1,): 1 to normalize with `given`; 0 to normalize with the statistics of the
              core, and `given` must then be zeros

and this output:

    found     float32 (B, norms, 2, groups): means and variances of the core

Statistics are accumulated in fp32 over differences from the given mean, which avoids cancellation
if that is close to the true mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from sdpack.domain.tiles import CORE, FOUND, GIVEN, SHARED
from sdpack.rewrite.writer import Sizes, Writer, hand_over, input_of, shape_of, sizes_of

NORM = "GroupNormalization"
ROW_AXIS, COLUMN_AXIS = "rows", "columns"
FLOAT_TYPE = ir.DataType.FLOAT
EPSILON = 1e-5  # what ONNX takes where a node says nothing


def share_statistics(model: ir.Model, norms: Sequence[ir.Node], scales: Sequence[int]) -> None:
    """Make these normalizations use external statistics, in place.

    Args:
        model: the graph.
        norms: its normalizations, all with the same number of groups.
        scales: for each, its pixels per pixel of the core, along one side.
    """
    _Shared(model, norms, scales).run()


def input_value(name: str, sizes: Sizes) -> ir.Value:
    """A float32 input of a graph."""
    return ir.Value(name=name, type=ir.TensorType(FLOAT_TYPE), shape=shape_of(sizes))


class _Shared:
    """Replaces the normalizations of a tail."""

    def __init__(self, model: ir.Model, norms: Sequence[ir.Node], scales: Sequence[int]) -> None:
        self.model, self.norms, self.scales = model, norms, scales
        self.groups = norms[0].attributes.get_int("num_groups", 0)
        statistics: Sizes = ("batch", len(norms), 2, self.groups)
        self.core = input_value(CORE, (1, 1, ROW_AXIS, COLUMN_AXIS))
        self.given, self.shared = input_value(GIVEN, statistics), input_value(SHARED, (1,))
        self.cores: dict[int, tuple[ir.Value, ir.Value]] = {}

    def run(self) -> None:
        graph = self.model.graph
        graph.inputs.extend([self.core, self.given, self.shared])
        self.first = first = Writer(next(iter(graph)).outputs[0], "shared")
        one = first.constant("one", np.ones(1, np.float32))
        self.own = first.add("own", "Sub", [one, self.shared], ((1,), FLOAT_TYPE))
        apart: Sizes = ("batch", 1, 2, self.groups)
        pieces = first.split("pieces", self.given, 1, [(apart, FLOAT_TYPE)] * len(self.norms))
        core_statistics = [
            self._rewrite(number, *each)
            for number, each in enumerate(zip(self.norms, self.scales, pieces, strict=True))
        ]
        sizes: Sizes = ("batch", len(core_statistics), 2, self.groups)
        whole = ir.node("Concat", core_statistics, {"axis": 1}, name=FOUND)
        (output,) = whole.outputs
        output.name, output.type, output.shape = FOUND, ir.TensorType(FLOAT_TYPE), shape_of(sizes)
        graph.append(whole)
        graph.outputs.append(output)
        RemoveUnusedNodesPass()(self.model)

    def _core(self, scale: int) -> tuple[ir.Value, ir.Value]:
        """Return the core enlarged by `scale` per side, and its number of pixels."""
        if scale not in self.cores:
            sizes: Sizes = (1, 1, "?", "?")
            scales = self.first.constant(
                f"scales{scale}", np.array([1, 1, scale, scale], np.float32)
            )
            how = {"mode": "nearest", "nearest_mode": "floor"}
            how["coordinate_transformation_mode"] = "asymmetric"
            inputs = [self.core, None, scales]
            core = self.first.add(f"core{scale}", "Resize", inputs, (sizes, FLOAT_TYPE), how)
            axes = self.first.integers(f"axes{scale}", 1, 2, 3)
            inputs, one = [core, axes], (1, 1, 1)
            count = self.first.add(
                f"pixels{scale}", "ReduceSum", inputs, ((1, 1, 1, 1), FLOAT_TYPE)
            )
            shape = self.first.integers(f"pixels_shape{scale}", *one)
            count = self.first.add(f"count{scale}", "Reshape", [count, shape], (one, FLOAT_TYPE))
            self.cores[scale] = core, count
        return self.cores[scale]

    def _rewrite(self, number: int, norm: ir.Node, scale: int, piece: ir.Value) -> ir.Value:
        """Replace one normalization; return the statistics of its core, (B, 1, 2, groups)."""
        source, (output,) = input_of(norm, 0), norm.outputs
        core, count = self._core(scale)
        at = _At(Writer(output, f"norm{number}"), source, self.groups)
        mean, variance = at.apart(piece)
        near = at.held("near", mean)
        moved, spread = at.moments(near, core, count)
        found_mean = at.small("found_mean", "Add", near, moved)
        drift = at.small("drift", "Mul", self.own, spread)
        off = at.small("off", "Mul", self.own, moved)
        given_variance = at.small("kept", "Mul", self.shared, variance)
        epsilon = at.writer.constant(
            "epsilon", np.asarray(norm.attributes.get_float("epsilon", EPSILON), np.float32)
        )
        level = at.small("level", "Add", mean, off)
        sum_ = at.small("variance", "Add", given_variance, drift)
        deviation = at.root(at.small("above_zero", "Add", sum_, epsilon))
        hand_over(output, at.normalized(level, deviation, norm))
        statistics = at.together(found_mean, spread)
        graph = self.model.graph
        graph.remove(norm, safe=True)
        return statistics


class _At:
    """Writes the replacement of one normalization of `source`, (B, C, h, w).

    Statistics are (B, groups, 1) in between, and (B, C, 1, 1) where they are applied to pixels.
    """

    def __init__(self, writer: Writer, source: ir.Value, groups: int) -> None:
        self.writer, self.source, self.groups = writer, source, groups
        channels = sizes_of(source)[1]
        assert isinstance(channels, int)
        self.channels = channels
        self.few: Sizes = ("batch", groups, 1)
        self.all: Sizes = sizes_of(source)

    def small(self, word: str, op_type: str, left: ir.Value, right: ir.Value) -> ir.Value:
        return self.writer.add(word, op_type, [left, right], (self.few, FLOAT_TYPE))

    def root(self, value: ir.Value) -> ir.Value:
        return self.writer.add("deviation", "Sqrt", [value], (self.few, FLOAT_TYPE))

    def held(self, word: str, few: ir.Value) -> ir.Value:
        """Round a statistic to the pixels' type, so that subtracting it from pixels is exact."""
        narrow = self.writer.cast(f"{word}_narrow", few, self.source.dtype)
        return self.writer.cast(word, narrow, FLOAT_TYPE)

    def apart(self, piece: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Mean and variance from the given statistics."""
        made: Sizes = ("batch", 1, 1, self.groups)
        pieces = self.writer.split("apart", piece, 2, [(made, FLOAT_TYPE)] * 2)
        shape = self.writer.integers("few", 0, self.groups, 1)
        turned = (self._turned(value, word) for word, value in zip("mv", pieces, strict=True))
        mean, variance = (
            self.writer.add(word, "Reshape", [value, shape], (self.few, FLOAT_TYPE))
            for word, value in zip(("mean", "given_spread"), turned, strict=True)
        )
        return mean, variance

    def _turned(self, value: ir.Value, word: str) -> ir.Value:
        """Transpose (B, 1, 1, groups) to (B, groups, 1, 1), which a Reshape can follow."""
        sizes: Sizes = ("batch", self.groups, 1, 1)
        return self.writer.add(
            f"turned_{word}", "Transpose", [value], (sizes, FLOAT_TYPE), {"perm": (0, 3, 1, 2)}
        )

    def moments(self, mean: ir.Value, core: ir.Value, count: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the difference of the core's mean from `mean`, and the core's variance."""
        writer = self.writer
        level = writer.cast("level", self._wide("mean", mean), self.source.dtype)
        kind = (self.all, self.source.dtype)
        off = writer.add("off_all", "Sub", [self.source, level], kind)
        weight = writer.cast("core", core, self.source.dtype)
        # Widened only now: a compiler then widens in the sum, and not in memory.
        own = writer.cast("own", writer.add("own", "Mul", [off, weight], kind), FLOAT_TYPE)
        each = self.channels // self.groups
        ones = writer.constant("each", np.asarray(each, np.float32))
        numbers = writer.add("numbers", "Mul", [count, ones], ((1, 1, 1), FLOAT_TYPE))
        moved = self._mean_of(own, "ReduceSum", numbers, "first")
        second = self._mean_of(own, "ReduceSumSquare", numbers, "second")
        square = self.small("square", "Mul", moved, moved)
        spread = self.small("raw_spread", "Sub", second, square)
        zero = writer.constant("zero", np.asarray(0, np.float32))
        return moved, self.small("spread", "Max", spread, zero)

    def _mean_of(self, own: ir.Value, op_type: str, numbers: ir.Value, word: str) -> ir.Value:
        writer, each = self.writer, self.channels // self.groups
        axes = writer.integers(f"{word}_axes", 2, 3)
        sizes: Sizes = ("batch", self.channels, 1, 1)
        by_channel = writer.add(f"{word}_sums", op_type, [own, axes], (sizes, FLOAT_TYPE))
        shape = writer.integers(f"{word}_shape", 0, self.groups, each)
        grouped: Sizes = ("batch", self.groups, each)
        apart = writer.add(f"{word}_grouped", "Reshape", [by_channel, shape], (grouped, FLOAT_TYPE))
        inner = writer.integers(f"{word}_inner", 2)
        total = writer.add(f"{word}_total", "ReduceSum", [apart, inner], (self.few, FLOAT_TYPE))
        return self.small(f"{word}_moment", "Div", total, numbers)

    def _wide(self, word: str, few: ir.Value) -> ir.Value:
        """Expand a statistic of groups to channels, (B, C, 1, 1)."""
        writer, each = self.writer, self.channels // self.groups
        ones = writer.constant(f"{word}_ones", np.ones((1, 1, each), np.float32))
        grouped: Sizes = ("batch", self.groups, each)
        spread = writer.add(f"{word}_spread", "Mul", [few, ones], (grouped, FLOAT_TYPE))
        shape = writer.integers(f"{word}_wide_shape", 0, self.channels, 1, 1)
        sizes: Sizes = ("batch", self.channels, 1, 1)
        return writer.add(f"{word}_wide", "Reshape", [spread, shape], (sizes, FLOAT_TYPE))

    def normalized(self, level: ir.Value, deviation: ir.Value, norm: ir.Node) -> ir.Value:
        """Return (source - level) / deviation * weight + bias.

        The bias compensates for the rounding of the level to the pixels' type.
        """
        writer, dtype = self.writer, self.source.dtype
        column = writer.integers("column", 1, self.channels, 1, 1)
        sizes: Sizes = (1, self.channels, 1, 1)
        weight, bias = (
            writer.add(word, "Reshape", [input_of(norm, place), column], (sizes, dtype))
            for word, place in (("weight", 1), ("bias", 2))
        )
        wide: Sizes = ("batch", self.channels, 1, 1)
        slope = [writer.cast("weight", weight, FLOAT_TYPE), self._wide("deviation", deviation)]
        scale = writer.add("scale", "Div", slope, (wide, FLOAT_TYPE))
        level_held = self.held("level_held", level)
        rest = self.small("rest", "Sub", level_held, level)
        rest = writer.add("rests", "Mul", [self._wide("rest", rest), scale], (wide, FLOAT_TYPE))
        lift = [writer.cast("bias", bias, FLOAT_TYPE), rest]
        lifted = writer.add("lifted", "Add", lift, (wide, FLOAT_TYPE))
        inputs = [self.source, writer.cast("levels", self._wide("level", level_held), dtype)]
        centred = writer.add("centred", "Sub", inputs, (self.all, dtype))
        inputs = [centred, writer.cast("scales", scale, dtype)]
        scaled = writer.add("scaled", "Mul", inputs, (self.all, dtype))
        inputs = [scaled, writer.cast("lifts", lifted, dtype)]
        return writer.add("normalized", "Add", inputs, (self.all, dtype))

    def together(self, mean: ir.Value, variance: ir.Value) -> ir.Value:
        """Join mean and variance to (B, 1, 2, groups)."""
        writer = self.writer
        sizes: Sizes = ("batch", self.groups, 2)
        both = writer.add("both", "Concat", [mean, variance], (sizes, FLOAT_TYPE), {"axis": 2})
        turned: Sizes = ("batch", 2, self.groups)
        rows = writer.add("rows", "Transpose", [both], (turned, FLOAT_TYPE), {"perm": (0, 2, 1)})
        axes = writer.integers("found_axes", 1)
        made: Sizes = ("batch", 1, 2, self.groups)
        return writer.add("found", "Unsqueeze", [rows, axes], (made, FLOAT_TYPE))
