"""Sliced attention in standard operators: queries are processed in several slices.

Only the scores of one slice are in memory at a time, in every runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from sdpack.rewrite.attention import Attention, written_out
from sdpack.rewrite.writer import (
    INT64,
    Size,
    Sizes,
    Writer,
    describe,
    hand_over,
    prune,
    sizes_of,
    zero_like,
)


def slice_attention(model: ir.Model, slices: int) -> int:
    """Split every decomposed attention into slices of its queries, in place.

    Only the scores of one slice are in memory at a time. Uses only standard operators (opset 13).
    Each slice depends on the previous one, so that no runtime computes them in parallel.

    Args:
        model: the graph.
        slices: number of slices, at most one per query.

    Returns:
        The number of attentions that were sliced.
    """
    count = 0
    for attention in written_out(model):
        cut = _cut(attention)
        if cut:
            _Slicing(attention, cut, slices).run()
            count += 1
    return count


def _cut(attention: Attention) -> tuple[ir.Value, ...]:
    """Return the values to slice: queries, and masks that differ by query; () if impossible."""
    size = sizes_of(attention.query)[-2]
    rows = {mask: (1, 1, *sizes_of(mask))[-2] for mask in attention.masks}
    fits = all(mask.shape is not None and rows[mask] in (1, size) for mask in rows)
    return (attention.query, *(m for m in rows if rows[m] != 1)) if fits and size != 1 else ()


class _Slicing:
    def __init__(self, attention: Attention, cut: tuple[ir.Value, ...], slices: int) -> None:
        self.attention, self.cut = attention, cut
        self.writer = Writer(attention.output)
        self.size = sizes_of(attention.query)[-2]
        self.count = min(slices, self.size) if isinstance(self.size, int) else slices
        # If the queries do not divide evenly, the first slices get one more.
        self.spare = list(range(self.count))[::-1]

    def run(self) -> None:
        output, rank = self.attention.output, self.attention.rank
        lengths = self._lengths()
        pieces = [self._pieces(f"cut{i}", value, lengths) for i, value in enumerate(self.cut)]
        outputs: list[ir.Value] = []
        for number in range(self.count):
            copies = {value: cut[number] for value, cut in zip(self.cut, pieces, strict=True)}
            if outputs:
                copies[self.attention.query] = self._after(pieces[0][number], outputs[-1])
            for node in self.attention.nodes:
                self._copy(node, number, copies)
            outputs.append(copies[output])
        described, axis = (sizes_of(output), output.dtype), {"axis": rank - 2}
        hand_over(output, self.writer.add("slices", "Concat", outputs, described, axis))
        prune(self.attention.nodes[-1])

    def _length(self, number: int) -> Size:
        """Return the length of a slice: a number, or an expression that liveness can evaluate."""
        if isinstance(self.size, int):
            return (self.size + self.spare[number]) // self.count
        sum_ = f"({self.size} + {self.spare[number]})//{self.count}"
        return f"?{sum_}" if self.size.startswith("?") else sum_

    def _lengths(self) -> ir.Value:
        """Add the lengths of all slices, int64 (slices,)."""
        lengths = [self._length(number) for number in range(self.count)]
        if isinstance(self.size, int):
            return self.writer.integers("lengths", *(int(length) for length in lengths))
        size = self.writer.size("queries", self.attention.query, self.attention.rank - 2)
        spare, count = self.writer.integers("spare", *self.spare), ((self.count,), INT64)
        sums = self.writer.add("sums", "Add", [size, spare], count)
        return self.writer.add(
            "lengths", "Div", [sums, self.writer.integers("count", self.count)], count
        )

    def _pieces(self, word: str, value: ir.Value, lengths: ir.Value) -> Sequence[ir.Value]:
        sizes = sizes_of(value)
        name = self.writer.name(word)
        axis = {"axis": len(sizes) - 2}
        split = ir.node("Split", [value, lengths], axis, num_outputs=self.count, name=name)
        for number, piece in enumerate(split.outputs):
            piece.name = f"{name}_{number}"
            describe(piece, (*sizes[:-2], self._length(number), sizes[-1]), value.dtype)
        self.writer.insert(split)
        return split.outputs

    def _after(self, piece: ir.Value, before: ir.Value) -> ir.Value:
        """Make a slice of the queries depend on the output of the previous slice.

        Compilers may run independent slices in parallel, with all their scores in memory;
        TensorRT-RTX does. Adding min(|x|, 0) = 0, for one element x of the previous slice's output,
        prevents this.
        """
        word, sizes, dtype = f"{before.name}_then", sizes_of(piece), piece.dtype
        one: Sizes = (*sizes[:-2], 1, 1)
        axes = len(sizes) - 2, len(sizes) - 1
        limits = {"starts": (0, 0), "ends": (1, 1), "axes": axes}
        inputs = [before, *(self.writer.integers(f"{word}_{k}", *v) for k, v in limits.items())]
        number = self.writer.add(f"{word}_one", "Slice", inputs, (one, before.dtype))
        number = self.writer.cast(f"{word}_one", number, dtype)
        size = self.writer.add(f"{word}_size", "Abs", [number], (one, dtype))
        zero = self.writer.constant(f"{word}_zero", zero_like(piece))
        nothing = self.writer.add(f"{word}_nothing", "Min", [size, zero], (one, dtype))
        return self.writer.add(word, "Add", [piece, nothing], (sizes, dtype))

    def _copy(self, node: ir.Node, number: int, copies: dict[ir.Value, ir.Value]) -> None:
        """Copy a node for one slice; `copies` maps original values to those of the slice."""
        inputs = [copies.get(value, value) if value is not None else None for value in node.inputs]
        (output,) = node.outputs
        name = f"{output.name}_slice{number}"
        copy = ir.node(node.op_type, inputs, node.attributes, name=name)
        copy.outputs[0].name = name
        sizes = sizes_of(output)
        if sizes:
            sizes = (*sizes[:-2], self._length(number), sizes[-1])
        describe(copy.outputs[0], sizes, output.dtype)
        self.writer.insert(copy)
        copies[output] = copy.outputs[0]
