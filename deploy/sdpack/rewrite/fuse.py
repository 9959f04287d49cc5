"""Fusion of attention into one operator, com.microsoft.MultiHeadAttention.

ONNX Runtime computes unmasked attention tile by tile (Dao et al., FlashAttention, 2022); with a
mask, its CPU kernel computes all scores. Fusion works on any variant, quantized or not, and skips
patterns that it does not recognize.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from sdpack.rewrite.attention import Attention, unscaled, written_out
from sdpack.rewrite.writer import (
    BOOL,
    FLOAT_TYPES,
    INT64,
    Size,
    Sizes,
    Writer,
    agree,
    elements,
    hand_over,
    input_of,
    lowest_of,
    permutation,
    prune,
    scalar,
    sizes_of,
    zero_like,
)

FUSED, FUSED_DOMAIN = "MultiHeadAttention", "com.microsoft"
SWAPPED = (0, 2, 1, 3)  # swaps the axes of heads and tokens
LAST_SWAPPED = (0, 1, 3, 2)
# Positions of the axes (B, tokens, [H,] D) in queries and values, which are (B, [H,] tokens, D),
# and in keys, which are (B, [H,] D, tokens); by rank.
QUERY_AXES = {4: SWAPPED, 3: (0, 1, 2)}
KEY_AXES = {4: (0, 3, 1, 2), 3: (0, 2, 1)}
# Operators whose outputs are finite if their inputs are.
MOVES = frozenset({"Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def fuse_attention(model: ir.Model) -> int:
    """Replace every decomposed attention by MultiHeadAttention, in place.

    The operator takes the projections before they are split into heads. Only ONNX Runtime can run
    the result.

    Returns:
        The number of attentions that were replaced.
    """
    biases: dict[tuple[Any, ...], ir.Value] = {}
    count = 0
    for attention in written_out(model):
        plan = _plan(attention)
        if plan is not None:
            _fuse(plan, biases)
            count += 1
    if count:
        graph = model.graph
        graph.opset_imports.setdefault(FUSED_DOMAIN, 1)
    return count


@dataclass(frozen=True)
class _Operand:
    """Queries, keys or values.

    Attributes:
        source: the value that they are computed from.
        axes: positions of the axes (B, tokens, [H,] D) in `source`.
        dtype: compute type of the product; `source` may be narrower.
        factor: multiplies `source`.
    """

    source: ir.Value
    axes: tuple[int, ...]
    dtype: ir.DataType | None
    factor: float

    @property
    def known(self) -> bool:
        """Whether the rank of `source` is known and as expected."""
        return len(sizes_of(self.source)) == len(self.axes)

    @property
    def sizes(self) -> tuple[Size, Size, Size, Size]:
        """B, tokens, H and D; H is 1 without an axis of heads."""
        sizes = sizes_of(self.source)
        batch, tokens, *heads, width = (sizes[axis] for axis in self.axes)
        return batch, tokens, heads[0] if heads else 1, width


@dataclass(frozen=True)
class _Plan:
    """The operands and attributes of a fused operator; `width` is that of one head's values."""

    attention: Attention
    query: _Operand
    key: _Operand
    value: _Operand
    masks: tuple[ir.Value, ...]
    dtype: ir.DataType
    heads: int
    width: int

    @property
    def rank(self) -> int:
        return self.attention.rank

    @property
    def scale(self) -> float:
        return self.attention.factor * self.query.factor * self.key.factor

    @property
    def batch(self) -> Size:
        return self.query.sizes[0]

    @property
    def tokens(self) -> tuple[Size, Size]:
        """Number of tokens of the queries, and of the keys."""
        return self.query.sizes[1], self.key.sizes[1]

    @property
    def zeroes(self) -> bool:
        """Whether fully masked queries must yield zeros."""
        return self.attention.guarded and not all(_is_finite(mask) for mask in self.masks)


def _plan(attention: Attention) -> _Plan | None:
    """Return a plan to compute an attention with the operator; None if it may not be possible."""
    rank = attention.rank
    query = _operand(attention.query, QUERY_AXES[rank], scaled=True)
    key = _operand(attention.key, KEY_AXES[rank], scaled=True)
    value = _operand(attention.value, QUERY_AXES[rank], scaled=False)
    if not all(operand.known for operand in (query, key, value)):
        return None
    (batch, _, heads, width), keys, values = query.sizes, key.sizes, value.sizes
    if (keys[0], values[0], keys[2], values[2], keys[3]) != (batch, batch, heads, heads, width):
        return None
    if not all(isinstance(size, int) for size in (heads, width, values[3])):
        return None
    dtypes = {operand.dtype for operand in (query, key, value)}
    if not dtypes.issubset(FLOAT_TYPES):
        return None
    dtype = dtypes.pop() if len(dtypes) == 1 else ir.DataType.FLOAT
    assert dtype is not None
    masks = tuple(_uncast(mask, dtype) for mask in attention.masks if not _is_zero(mask))
    plan = _Plan(attention, query, key, value, masks, dtype, int(heads), int(values[3]))
    return plan if _takes_masks(plan) and plan.scale not in (0, math.inf) else None


def _operand(value: ir.Value, axes: tuple[int, ...], scaled: bool) -> _Operand:
    """Trace a value back through transposes, widening casts and, if `scaled`, constant factors."""
    factor, dtype = 1.0, value.dtype
    while (node := value.producer()) is not None:
        moved = tuple(range(len(axes)))
        if node.op_type == "Transpose" and len(permutation(node)) == len(axes):
            moved, value = permutation(node), input_of(node, 0)
        elif node.op_type == "Reshape" and (source := _before_swap(node)) is not None:
            moved, value = LAST_SWAPPED, source
        elif (
            node.op_type == "Cast"
            and input_of(node, 0).dtype in FLOAT_TYPES
            and dtype is FLOAT_TYPES[0]
        ):
            value = input_of(node, 0)
        elif scaled and (parts := unscaled(node)) is not None:
            value, factor = parts[0], factor * parts[1]
        else:
            break
        axes = tuple(moved[axis] for axis in axes)
    return _Operand(value, axes, dtype, factor)


def _before_swap(unfold: ir.Node) -> ir.Value | None:
    """Match torch's swap of the last two axes (Reshape, Transpose, Reshape); return its input."""
    swap = input_of(unfold, 0).producer()
    if swap is None or swap.op_type != "Transpose" or permutation(swap) != (0, 2, 1):
        return None
    fold = input_of(swap, 0).producer()
    if fold is None or fold.op_type != "Reshape":
        return None
    source = input_of(fold, 0)
    sizes = sizes_of(source)
    folded, unfolded = elements(input_of(fold, 1)), elements(input_of(unfold, 1))
    if len(sizes) != 4 or len(unfolded) != 4 or folded[1:] != sizes[2:]:
        return None
    swapped = (*sizes[:2], sizes[3], sizes[2])
    apart = [new for new, size in zip(unfolded, swapped, strict=True) if new != size]
    return source if apart in ([], [-1]) else None


def _takes_masks(plan: _Plan) -> bool:
    """Whether the operator can add the masks with the same result."""
    allowed = ((1, plan.batch), (1, plan.heads))
    for mask in plan.masks:
        sizes = sizes_of(mask)
        full = (1,) * (plan.rank - len(sizes)) + sizes
        known = all(size in may for size, may in zip(full[:-2], allowed, strict=False))
        widens = mask.dtype in FLOAT_TYPES and plan.dtype in (mask.dtype, ir.DataType.FLOAT)
        if not known or len(sizes) < 2 or not widens:
            return False
    return not (plan.zeroes and plan.rank == 3)


def _uncast(mask: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Return the input of a mask's cast, if it has this type; otherwise the mask."""
    node = mask.producer()
    if node is not None and node.op_type == "Cast" and input_of(node, 0).dtype is dtype:
        return input_of(node, 0)
    return mask


def _is_zero(mask: ir.Value) -> bool:
    """Whether a mask is zero; baddbmm with beta = 0 is exported with such a mask."""
    if (number := scalar(mask)) is not None:
        return number == 0
    node = mask.producer()
    if node is None or node.op_type not in ("Mul", "Expand"):
        return False
    inputs = node.inputs if node.op_type == "Mul" else node.inputs[:1]
    return all(value is not None and _is_zero(value) for value in inputs)


def _is_finite(mask: ir.Value) -> bool:
    """Whether a mask is known to hold no infinity."""
    tensor, node = ir.convenience.get_const_tensor(mask), mask.producer()
    if tensor is not None:
        return bool(np.isfinite(tensor.numpy().astype(np.float32)).all())
    if node is None:
        return False
    if node.op_type == "Where":
        return _is_finite(input_of(node, 1)) and _is_finite(input_of(node, 2))
    return node.op_type in MOVES and _is_finite(input_of(node, 0))


def _fuse(plan: _Plan, biases: dict[tuple[Any, ...], ir.Value]) -> None:
    output = plan.attention.output
    writer = Writer(output)
    fused, bias = _fused(writer, plan, biases)
    fused = writer.cast("fused", fused, output.dtype)
    if bias is not None and plan.zeroes:
        hand_over(output, _zeroed(writer, plan, _split(writer, plan, fused), bias))
    elif plan.rank == 3:
        hand_over(output, fused)
    else:
        _skip_merging(output, fused)
        if output.uses() or output.is_graph_output():
            hand_over(output, _split(writer, plan, fused))
    prune(plan.attention.nodes[-1])


def _fused(
    writer: Writer, plan: _Plan, biases: dict[tuple[Any, ...], ir.Value]
) -> tuple[ir.Value, ir.Value | None]:
    """Add the operator; return its output (B, S, H * width), and its bias if there are masks."""
    operands = {"query": plan.query, "key": plan.key, "value": plan.value}
    inputs: list[ir.Value | None] = [
        writer.cast(word, _merged(writer, word, operand), plan.dtype)
        for word, operand in operands.items()
    ]
    bias = _bias(writer, plan, biases) if plan.masks else None
    if bias is not None:
        inputs += [None, None, bias]
    described = (plan.batch, plan.tokens[0], plan.heads * plan.width), plan.dtype
    attributes = {"num_heads": plan.heads, "scale": plan.scale}
    return writer.add("fused", FUSED, inputs, described, attributes, FUSED_DOMAIN), bias


def _merged(writer: Writer, word: str, operand: _Operand) -> ir.Value:
    """Return an operand as (B, tokens, H * D), if possible from before the split into heads."""
    value, axes, node = operand.source, operand.axes, operand.source.producer()
    batch, tokens, heads, width = operand.sizes
    merged: Sizes = (batch, tokens, int(heads) * int(width))
    if parts := _joined(operand):
        inputs = [
            writer.cast(f"{word}_{i}", _merged(writer, f"{word}_{i}", part), value.dtype)
            for i, part in enumerate(parts)
        ]
        return writer.add(word, "Concat", inputs, (merged, value.dtype), {"axis": 1})
    if axes != tuple(sorted(axes)):
        turned = merged if len(axes) == 3 else operand.sizes
        described = turned, value.dtype
        value = writer.add(f"{word}_turned", "Transpose", [value], described, {"perm": axes})
    elif node is not None and node.op_type == "Reshape" and agree(input_of(node, 0), merged):
        return input_of(node, 0)
    if len(axes) == 3:
        return value
    shape = writer.integers(f"{word}_shape", 0, 0, int(heads) * int(width))
    return writer.add(word, "Reshape", [value, shape], (merged, value.dtype))


def _joined(operand: _Operand) -> list[_Operand]:
    """Return the operands that an operand concatenates along its tokens; empty if it does not."""
    node, axes = operand.source.producer(), operand.axes
    if node is None or node.op_type != "Concat":
        return []
    if node.attributes.get_int("axis", 0) % len(axes) != axes[1]:
        return []
    parts = [_operand(input_of(node, i), axes, scaled=False) for i in range(len(node.inputs))]
    alike = all(part.known and part.sizes[2:] == operand.sizes[2:] for part in parts)
    return parts if alike else []


def _bias(writer: Writer, plan: _Plan, biases: dict[tuple[Any, ...], ir.Value]) -> ir.Value:
    """Return the masks as the operator's bias (B or 1, H or 1, S, T); reuses equal ones."""
    key = (plan.masks, plan.rank, plan.tokens, plan.dtype)
    if key not in biases:
        bias, *others = [
            _raised(writer, f"mask{i}", mask, plan) for i, mask in enumerate(plan.masks)
        ]
        for i, other in enumerate(others):
            pairs = zip(sizes_of(bias), sizes_of(other), strict=True)
            sizes = tuple(second if first == 1 else first for first, second in pairs)
            bias = writer.add(f"masks{i}", "Add", [bias, other], (sizes, plan.dtype))
        biases[key] = _spread(writer, plan, bias)
    return biases[key]


def _raised(writer: Writer, word: str, mask: ir.Value, plan: _Plan) -> ir.Value:
    """Return a mask with four axes, in the operator's type."""
    sizes = sizes_of(mask)
    mask = writer.cast(word, mask, plan.dtype)
    # (S, T) and (H, S, T) lack leading axes; (B, S, T), without heads, lacks the second axis.
    missing = [1] if plan.rank == len(sizes) == 3 else list(range(4 - len(sizes)))
    if not missing:
        return mask
    full = (sizes[0], 1, *sizes[1:]) if missing == [1] else (1,) * len(missing) + sizes
    axes = writer.integers(f"{word}_axes", *missing)
    return writer.add(f"{word}_raised", "Unsqueeze", [mask, axes], (full, plan.dtype))


def _spread(writer: Writer, plan: _Plan, bias: ir.Value) -> ir.Value:
    """Expand a bias over queries and keys; the operator broadcasts only batch and heads."""
    sizes = sizes_of(bias)
    if sizes[2:] == plan.tokens:
        return bias
    counts = [writer.integers("bias_ones", 1, 1)]
    for word, operand in (("bias_queries", plan.query), ("bias_keys", plan.value)):
        counts.append(writer.size(word, operand.source, operand.axes[1]))
    shape = writer.add("bias_shape", "Concat", counts, ((4,), INT64), {"axis": 0})
    return writer.add("bias", "Expand", [bias, shape], ((*sizes[:2], *plan.tokens), plan.dtype))


def _split(writer: Writer, plan: _Plan, fused: ir.Value) -> ir.Value:
    """Split the operator's output into heads: (B, H, S, width)."""
    batch, tokens, heads, width = plan.batch, plan.tokens[0], plan.heads, plan.width
    shape = writer.integers("split_shape", 0, 0, heads, width)
    described: tuple[Sizes, Any] = (batch, tokens, heads, width), fused.dtype
    apart = writer.add("split", "Reshape", [fused, shape], described)
    described = (batch, heads, tokens, width), fused.dtype
    return writer.add("turned", "Transpose", [apart], described, {"perm": SWAPPED})


def _zeroed(writer: Writer, plan: _Plan, output: ir.Value, bias: ir.Value) -> ir.Value:
    """Replace the output of fully masked queries, which is NaN, by zeros."""
    rows: Sizes = (*sizes_of(bias)[:3], 1)
    inputs = [bias, writer.integers("last_axis", -1)]
    most = writer.add("most", "ReduceMax", inputs, (rows, plan.dtype))
    lowest = writer.constant("lowest", lowest_of(plan.dtype))
    nothing = writer.add("nothing", "Less", [most, lowest], (rows, BOOL))
    zero = writer.constant("zero", zero_like(output))
    described = sizes_of(output), output.dtype
    return writer.add("zeroed", "Where", [nothing, zero, output], described)


def _skip_merging(output: ir.Value, fused: ir.Value) -> None:
    """Bypass nodes that merge the heads of `output`, because `fused` is already merged."""
    for turn in [use.node for use in output.uses()]:
        turned = turn.outputs[0]
        if turn.op_type != "Transpose" or permutation(turn) != SWAPPED:
            continue
        for merge in [use.node for use in turned.uses() if use.idx == 0]:
            if merge.op_type == "Reshape" and _keeps_order(merge):
                merge.replace_input_with(0, fused)
                _skip_idle(merge)
        prune(turn)


def _keeps_order(reshape: ir.Node) -> bool:
    """Whether a Reshape of four axes gives the same result if the last two are already merged."""
    target = elements(input_of(reshape, 1))
    return reshape.attributes.get_int("allowzero", 0) == 1 or 0 not in target[2:]


def _skip_idle(reshape: ir.Node) -> None:
    source, output = input_of(reshape, 0), reshape.outputs[0]
    if agree(output, sizes_of(source)) and not output.is_graph_output():
        output.replace_all_uses_with(source)
        prune(reshape)
