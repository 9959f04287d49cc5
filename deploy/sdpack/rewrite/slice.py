"""Attention for some of the queries after the others, in standard operators.

The scores then take a slice of their memory, whatever runs the graph.
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
    """Compute every attention that is written out for some of the queries after the others.

    The scores then take a slice of their memory. The graph is changed in place and keeps to
    standard ONNX (opset 13). A slice waits for the one before it, whatever runs the graph.

    Returns:
        How many were sliced.
    """
    count = 0
    for attention in written_out(model):
        cut = _cut(attention)
        if cut:
            _Slicing(attention, cut, slices).run()
            count += 1
    return count


def _cut(attention: Attention) -> tuple[ir.Value, ...]:
    """The queries, and the masks that differ between them; nothing if that is not known."""
    size = sizes_of(attention.query)[-2]
    rows = {mask: (1, 1, *sizes_of(mask))[-2] for mask in attention.masks}
    known = all(mask.shape is not None and rows[mask] in (1, size) for mask in rows)
    return (attention.query, *(m for m in rows if rows[m] != 1)) if known and size != 1 else ()


class _Slicing:
    def __init__(self, attention: Attention, cut: tuple[ir.Value, ...], slices: int) -> None:
        self.attention, self.cut = attention, cut
        self.writer = Writer(attention.output)
        self.size = sizes_of(attention.query)[-2]
        self.count = min(slices, self.size) if isinstance(self.size, int) else slices
        # The first slices have one query more where there is no even number for each.
        self.spare = list(range(self.count))[::-1]

    def run(self) -> None:
        output, rank = self.attention.output, self.attention.rank
        lengths = self._lengths()
        pieces = [self._pieces(f"cut{i}", value, lengths) for i, value in enumerate(self.cut)]
        made: list[ir.Value] = []
        for number in range(self.count):
            known = {value: cut[number] for value, cut in zip(self.cut, pieces, strict=True)}
            if made:
                known[self.attention.query] = self._after(pieces[0][number], made[-1])
            for node in self.attention.nodes:
                self._copy(node, number, known)
            made.append(known[output])
        described = sizes_of(output), output.dtype
        hand_over(output, self.writer.add("slices", "Concat", made, described, {"axis": rank - 2}))
        prune(self.attention.nodes[-1])

    def _length(self, number: int) -> Size:
        """Of a slice, as numbers or as what liveness can work out."""
        if isinstance(self.size, int):
            return (self.size + self.spare[number]) // self.count
        sum_ = f"({self.size} + {self.spare[number]})//{self.count}"
        return f"?{sum_}" if self.size.startswith("?") else sum_

    def _lengths(self) -> ir.Value:
        """Of all slices, int64 (slices,)."""
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
        name = f"{self.attention.output.name}_{word}"
        axis = {"axis": len(sizes) - 2}
        split = ir.node("Split", [value, lengths], axis, num_outputs=self.count, name=name)
        for number, piece in enumerate(split.outputs):
            piece.name = f"{name}_{number}"
            describe(piece, (*sizes[:-2], self._length(number), sizes[-1]), value.dtype)
        self.writer.insert(split)
        return split.outputs

    def _after(self, piece: ir.Value, before: ir.Value) -> ir.Value:
        """A piece of the queries that is not there before the slice `before` has been computed.

        A compiler may run slices that do not need each other side by side, with all their scores
        in memory, and TensorRT-RTX does. So what is made of one number x of the slice before is
        added: min(|x|, 0), which is nothing.
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

    def _copy(self, node: ir.Node, number: int, known: dict[ir.Value, ir.Value]) -> None:
        """The node on what `known` has in the place of its inputs; its output becomes known."""
        inputs = [known.get(value, value) if value is not None else None for value in node.inputs]
        (made,) = node.outputs
        name = f"{made.name}_slice{number}"
        copy = ir.node(node.op_type, inputs, node.attributes, name=name)
        copy.outputs[0].name = name
        sizes = sizes_of(made)
        if sizes:
            sizes = (*sizes[:-2], self._length(number), sizes[-1])
        describe(copy.outputs[0], sizes, made.dtype)
        self.writer.insert(copy)
        known[made] = copy.outputs[0]
