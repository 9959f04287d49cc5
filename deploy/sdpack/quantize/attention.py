"""Attention that never holds all of its scores: as one operator, or slice by slice.

Exporters write attention out, softmax(scale Q Kᵀ + mask) V in a node for every sign, and the scores
of all pairs of tokens are then in memory at once: 1.2 GiB in the UNet of Stable Diffusion 1.5.

fuse     com.microsoft.MultiHeadAttention, which ONNX Runtime computes tile by tile (Dao et al.,
         FlashAttention, 2022) where nothing is masked; with a mask its CPU kernel makes scores
slice    standard operators: some of the queries after the others

Both work on any variant, weights stored or not, and leave alone what they do not understand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

FUSED, FUSED_DOMAIN = "MultiHeadAttention", "com.microsoft"
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
INT64, BOOL = ir.DataType.INT64, ir.DataType.BOOL
SWAPPED = (0, 2, 1, 3)  # heads before tokens, or back
LAST_SWAPPED = (0, 1, 3, 2)
# The axes of (B, tokens, [H,] D) in queries and values, (B, [H,] tokens, D), and in keys, which are
# (B, [H,] D, tokens); by their number.
QUERY_AXES = {4: SWAPPED, 3: (0, 1, 2)}
KEY_AXES = {4: (0, 3, 1, 2), 3: (0, 2, 1)}
# What makes finite numbers of finite numbers.
MOVES = frozenset({"Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})

Size = int | str
Sizes = tuple[Size, ...]
"""Of axes: numbers, the exporter's names, or names of our own, with "?", for those without."""


def fuse_attention(model: ir.Model) -> int:
    """Put MultiHeadAttention in the place of every attention that is written out.

    Projections feed the operator as they are, before they are split into heads. The graph is
    changed in place; from then on only ONNX Runtime runs it.

    Returns:
        How many were replaced.
    """
    biases: dict[tuple[Any, ...], ir.Value] = {}
    count = 0
    for attention in _written_out(model):
        plan = _plan(attention)
        if plan is not None:
            _fuse(plan, biases)
            count += 1
    if count:
        model.graph.opset_imports.setdefault(FUSED_DOMAIN, 1)
    return count


def slice_attention(model: ir.Model, slices: int) -> int:
    """Compute every attention that is written out for some of the queries after the others.

    The scores then take a slice of their memory. The graph is changed in place and keeps to
    standard ONNX (opset 13). A slice waits for the one before it, whatever runs the graph.

    Returns:
        How many were sliced.
    """
    count = 0
    for attention in _written_out(model):
        cut = _cut(attention)
        if cut:
            _Slicing(attention, cut, slices).run()
            count += 1
    return count


# Finding


@dataclass(frozen=True)
class _Attention:
    """softmax(factor * query @ key + masks) @ value.

    Attributes:
        nodes: from the product that makes the scores to the one with the values, in order.
        masks: added to the scores, after the factor.
        guarded: whether rows of the softmax that are NaN become zeros.
    """

    nodes: tuple[ir.Node, ...]
    masks: tuple[ir.Value, ...]
    factor: float
    guarded: bool

    @property
    def query(self) -> ir.Value:
        return _input(self.nodes[0], 0)

    @property
    def key(self) -> ir.Value:
        return _input(self.nodes[0], 1)

    @property
    def value(self) -> ir.Value:
        return _input(self.nodes[-1], 1)

    @property
    def output(self) -> ir.Value:
        return self.nodes[-1].outputs[0]

    @property
    def rank(self) -> int:
        return len(_sizes(self.query))


def _written_out(model: ir.Model) -> Iterator[_Attention]:
    """In the graph's order; each may be replaced before the next is asked for."""
    for softmax in [node for node in model.graph if node.op_type == "Softmax"]:
        above, below = _scores(softmax), _weights(softmax)
        if above is None or below is None:
            continue
        nodes = (*above.nodes, softmax, *below.nodes)
        found = _Attention(nodes, above.masks, above.factor, below.guarded)
        rank = found.rank
        last = softmax.attributes.get_int("axis", -1) in (-1, rank - 1)
        values = (found.query, found.key, found.value)
        if last and rank in QUERY_AXES and all(len(_sizes(value)) == rank for value in values):
            yield found


@dataclass(frozen=True)
class _Scores:
    nodes: tuple[ir.Node, ...]
    masks: tuple[ir.Value, ...]
    factor: float


def _scores(softmax: ir.Node) -> _Scores | None:
    """What leads from the product of queries and keys to a softmax, and nowhere else."""
    value, nodes, masks, factor = _input(softmax, 0), list[ir.Node](), list[ir.Value](), 1.0
    while (node := value.producer()) is not None and _used_once(value):
        nodes.insert(0, node)
        if node.op_type == "MatMul":
            return _Scores(tuple(nodes), tuple(masks), factor)
        if node.op_type == "Cast":
            value = _input(node, 0)
        elif (scaled := _scaled(node)) is not None:
            value, factor = scaled[0], factor * scaled[1]
        elif (masked := _masked(node)) is not None and factor == 1:
            value = masked[0]
            masks.append(masked[1])
        else:
            break
    return None


@dataclass(frozen=True)
class _Weights:
    nodes: tuple[ir.Node, ...]
    guarded: bool


def _weights(softmax: ir.Node) -> _Weights | None:
    """What leads from a softmax to the product with the values, and nowhere else."""
    value, nodes, guarded = softmax.outputs[0], list[ir.Node](), False
    while not value.is_graph_output():
        users = [use.node for use in value.uses()]
        if len(users) == 1 and users[0].op_type == "Cast":
            nodes.append(users[0])
        elif (guard := _guard(value, users)) is not None:
            nodes += guard
            guarded = True
        elif len(users) == 1 and users[0].op_type == "MatMul" and users[0].inputs[0] is value:
            return _Weights((*nodes, users[0]), guarded)
        else:
            break
        value = nodes[-1].outputs[0]
    return None


def _guard(value: ir.Value, users: Sequence[ir.Node]) -> tuple[ir.Node, ir.Node] | None:
    """IsNaN and Where, if that is what turns NaN into zeros."""
    by_type = {node.op_type: node for node in users}
    isnan, where = by_type.get("IsNaN"), by_type.get("Where")
    if len(users) != 2 or isnan is None or where is None or not _used_once(isnan.outputs[0]):
        return None
    condition, zero, other = (_input(where, place) for place in range(3))
    fits = condition is isnan.outputs[0] and other is value and _scalar(zero) == 0
    return (isnan, where) if fits else None


def _scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    """A value and the number it is multiplied by."""
    if node.op_type not in ("Mul", "Div"):
        return None
    first, second = _input(node, 0), _input(node, 1)
    number = _scalar(second)
    if node.op_type == "Div":
        return (first, 1 / number) if number else None
    if number is None:
        first, number = second, _scalar(first)
    return None if number is None else (first, number)


def _masked(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Scores and what is added to them."""
    if node.op_type != "Add":
        return None
    first, second = _input(node, 0), _input(node, 1)
    if _is_scores(first) == _is_scores(second):
        return None
    return (first, second) if _is_scores(first) else (second, first)


def _is_scores(value: ir.Value) -> bool:
    """Whether it is a product of two values, scaled or masked."""
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "MatMul":
        return all(v is not None and v.const_value is None for v in node.inputs)
    if node.op_type == "Cast":
        return _is_scores(_input(node, 0))
    if (scaled := _scaled(node)) is not None:
        return _is_scores(scaled[0])
    return node.op_type == "Add" and any(v is not None and _is_scores(v) for v in node.inputs)


# Planning: what the operator takes


@dataclass(frozen=True)
class _Operand:
    """Queries, keys or values: `factor` times `source`, whose `axes` are (B, tokens, [H,] D).

    Attributes:
        dtype: what they are multiplied in; `source` may be narrower.
    """

    source: ir.Value
    axes: tuple[int, ...]
    dtype: ir.DataType | None
    factor: float

    @property
    def known(self) -> bool:
        """Whether it has the axes it should have."""
        return len(_sizes(self.source)) == len(self.axes)

    @property
    def sizes(self) -> tuple[Size, Size, Size, Size]:
        """B, tokens, H and D; one head where there is no axis of heads."""
        sizes = _sizes(self.source)
        batch, tokens, *heads, width = (sizes[axis] for axis in self.axes)
        return batch, tokens, heads[0] if heads else 1, width


@dataclass(frozen=True)
class _Plan:
    """What the operator takes; `width` is that of one head's values."""

    attention: _Attention
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
        """Of the queries and of the keys."""
        return self.query.sizes[1], self.key.sizes[1]

    @property
    def zeroes(self) -> bool:
        """Whether a query that may attend to nothing has to get zeros."""
        return self.attention.guarded and not all(_is_finite(mask) for mask in self.masks)


def _plan(attention: _Attention) -> _Plan | None:
    """How the operator computes it, or None if it is not known that it can."""
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
    if not dtypes.issubset(FLOATS):
        return None
    dtype = dtypes.pop() if len(dtypes) == 1 else ir.DataType.FLOAT
    assert dtype is not None
    masks = tuple(_uncast(mask, dtype) for mask in attention.masks if not _is_zero(mask))
    plan = _Plan(attention, query, key, value, masks, dtype, int(heads), int(values[3]))
    return plan if _takes_masks(plan) and plan.scale not in (0, math.inf) else None


def _operand(value: ir.Value, axes: tuple[int, ...], scaled: bool) -> _Operand:
    """Where a value comes from, before it was moved, widened and, if that is wanted, scaled."""
    factor, dtype = 1.0, value.dtype
    while (node := value.producer()) is not None:
        moved = tuple(range(len(axes)))
        if node.op_type == "Transpose" and len(_permutation(node)) == len(axes):
            moved, value = _permutation(node), _input(node, 0)
        elif node.op_type == "Reshape" and (source := _before_swap(node)) is not None:
            moved, value = LAST_SWAPPED, source
        elif node.op_type == "Cast" and _input(node, 0).dtype in FLOATS and dtype is FLOATS[0]:
            value = _input(node, 0)
        elif scaled and (parts := _scaled(node)) is not None:
            value, factor = parts[0], factor * parts[1]
        else:
            break
        axes = tuple(moved[axis] for axis in axes)
    return _Operand(value, axes, dtype, factor)


def _before_swap(unfold: ir.Node) -> ir.Value | None:
    """What had its last two axes swapped as torch writes it: a fold, a Transpose, this unfold."""
    swap = _input(unfold, 0).producer()
    if swap is None or swap.op_type != "Transpose" or _permutation(swap) != (0, 2, 1):
        return None
    fold = _input(swap, 0).producer()
    if fold is None or fold.op_type != "Reshape":
        return None
    source = _input(fold, 0)
    sizes = _sizes(source)
    folded, unfolded = _elements(_input(fold, 1)), _elements(_input(unfold, 1))
    if len(sizes) != 4 or len(unfolded) != 4 or folded[1:] != sizes[2:]:
        return None
    swapped = (*sizes[:2], sizes[3], sizes[2])
    apart = [new for new, size in zip(unfolded, swapped, strict=True) if new != size]
    return source if apart in ([], [-1]) else None


def _takes_masks(plan: _Plan) -> bool:
    """Whether the operator can add the masks, and what is made of them is the same."""
    allowed = ((1, plan.batch), (1, plan.heads))
    for mask in plan.masks:
        sizes = _sizes(mask)
        full = (1,) * (plan.rank - len(sizes)) + sizes
        known = all(size in may for size, may in zip(full[:-2], allowed, strict=False))
        widens = mask.dtype in FLOATS and plan.dtype in (mask.dtype, ir.DataType.FLOAT)
        if not known or len(sizes) < 2 or not widens:
            return False
    return not (plan.zeroes and plan.rank == 3)


def _uncast(mask: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A mask as it was in this type, before it was cast."""
    node = mask.producer()
    if node is not None and node.op_type == "Cast" and _input(node, 0).dtype is dtype:
        return _input(node, 0)
    return mask


def _is_zero(mask: ir.Value) -> bool:
    """Whether it adds nothing: baddbmm with a beta of zero is exported with such a mask."""
    if (number := _scalar(mask)) is not None:
        return number == 0
    node = mask.producer()
    if node is None or node.op_type not in ("Mul", "Expand"):
        return False
    inputs = node.inputs if node.op_type == "Mul" else node.inputs[:1]
    return all(value is not None and _is_zero(value) for value in inputs)


def _is_finite(mask: ir.Value) -> bool:
    """Whether it is known to hold no infinity."""
    tensor, node = ir.convenience.get_const_tensor(mask), mask.producer()
    if tensor is not None:
        return bool(np.isfinite(tensor.numpy().astype(np.float32)).all())
    if node is None:
        return False
    if node.op_type == "Where":
        return _is_finite(_input(node, 1)) and _is_finite(_input(node, 2))
    return node.op_type in MOVES and _is_finite(_input(node, 0))


# Fusing


class _Writer:
    """Adds nodes before the one that made `made`, under names that start with its name."""

    def __init__(self, made: ir.Value) -> None:
        before = made.producer()
        assert before is not None
        assert isinstance(before.graph, ir.Graph)
        self._before, self._graph, self._prefix = before, before.graph, made.name

    def insert(self, node: ir.Node) -> None:
        self._graph.insert_before(self._before, node)

    def add(
        self,
        word: str,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        made: tuple[Sizes, ir.DataType | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
    ) -> ir.Value:
        """What a new node makes, of these sizes and this type."""
        name = f"{self._prefix}_{word}"
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, name=name)
        (value,) = node.outputs
        value.name = name
        _describe(value, *made)
        self.insert(node)
        return value

    def cast(self, word: str, value: ir.Value, dtype: ir.DataType | None) -> ir.Value:
        if value.dtype is dtype or dtype is None:
            return value
        return self.add(f"{word}_cast", "Cast", [value], (_sizes(value), dtype), {"to": dtype})

    def size(self, word: str, value: ir.Value, axis: int) -> ir.Value:
        """How long an axis is, int64 (1,)."""
        return self.add(word, "Shape", [value], ((1,), INT64), {"start": axis, "end": axis + 1})

    def integers(self, word: str, *values: int) -> ir.Value:
        return self.constant(word, np.asarray(values, np.int64))

    def constant(self, word: str, values: NDArray[np.generic]) -> ir.Value:
        name = f"{self._prefix}_{word}"
        tensor, shape = ir.tensor(values, name=name), ir.Shape(values.shape)
        kind = ir.TensorType(tensor.dtype)
        made = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
        self._graph.register_initializer(made)
        return made


def _fuse(plan: _Plan, biases: dict[tuple[Any, ...], ir.Value]) -> None:
    output = plan.attention.output
    writer = _Writer(output)
    fused, bias = _fused(writer, plan, biases)
    fused = writer.cast("fused", fused, output.dtype)
    if bias is not None and plan.zeroes:
        _hand_over(output, _zeroed(writer, plan, _split(writer, plan, fused), bias))
    elif plan.rank == 3:
        _hand_over(output, fused)
    else:
        _skip_merging(output, fused)
        if output.uses() or output.is_graph_output():
            _hand_over(output, _split(writer, plan, fused))
    _prune(plan.attention.nodes[-1])


def _fused(
    writer: _Writer, plan: _Plan, biases: dict[tuple[Any, ...], ir.Value]
) -> tuple[ir.Value, ir.Value | None]:
    """What the operator makes, (B, S, H * width), and the bias it takes if there is a mask."""
    operands = {"query": plan.query, "key": plan.key, "value": plan.value}
    inputs: list[ir.Value | None] = [
        writer.cast(word, _merged(writer, word, operand), plan.dtype)
        for word, operand in operands.items()
    ]
    bias = _bias(writer, plan, biases) if plan.masks else None
    if bias is not None:
        inputs += [None, None, bias]
    made = (plan.batch, plan.tokens[0], plan.heads * plan.width), plan.dtype
    attributes = {"num_heads": plan.heads, "scale": plan.scale}
    return writer.add("fused", FUSED, inputs, made, attributes, FUSED_DOMAIN), bias


def _merged(writer: _Writer, word: str, operand: _Operand) -> ir.Value:
    """An operand as (B, tokens, H * D): what was split into heads, if that is all that was done."""
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
        made = turned, value.dtype
        value = writer.add(f"{word}_turned", "Transpose", [value], made, {"perm": axes})
    elif node is not None and node.op_type == "Reshape" and _agree(_input(node, 0), merged):
        return _input(node, 0)
    if len(axes) == 3:
        return value
    shape = writer.integers(f"{word}_shape", 0, 0, int(heads) * int(width))
    return writer.add(word, "Reshape", [value, shape], (merged, value.dtype))


def _joined(operand: _Operand) -> list[_Operand]:
    """What an operand is put together from along its tokens."""
    node, axes = operand.source.producer(), operand.axes
    if node is None or node.op_type != "Concat":
        return []
    if node.attributes.get_int("axis", 0) % len(axes) != axes[1]:
        return []
    parts = [_operand(_input(node, i), axes, scaled=False) for i in range(len(node.inputs))]
    alike = all(part.known and part.sizes[2:] == operand.sizes[2:] for part in parts)
    return parts if alike else []


def _bias(writer: _Writer, plan: _Plan, biases: dict[tuple[Any, ...], ir.Value]) -> ir.Value:
    """The masks as the operator takes them: (B or 1, H or 1, S, T); the same ones made once."""
    known = (plan.masks, plan.rank, plan.tokens, plan.dtype)
    if known not in biases:
        bias, *others = [
            _raised(writer, f"mask{i}", mask, plan) for i, mask in enumerate(plan.masks)
        ]
        for i, other in enumerate(others):
            pairs = zip(_sizes(bias), _sizes(other), strict=True)
            sizes = tuple(second if first == 1 else first for first, second in pairs)
            bias = writer.add(f"masks{i}", "Add", [bias, other], (sizes, plan.dtype))
        biases[known] = _spread(writer, plan, bias)
    return biases[known]


def _raised(writer: _Writer, word: str, mask: ir.Value, plan: _Plan) -> ir.Value:
    """A mask with four axes, in the operator's type."""
    sizes = _sizes(mask)
    mask = writer.cast(word, mask, plan.dtype)
    # (S, T) and (H, S, T) lack axes in front; (B, S, T), where there are no heads, the second.
    missing = [1] if plan.rank == len(sizes) == 3 else list(range(4 - len(sizes)))
    if not missing:
        return mask
    full = (sizes[0], 1, *sizes[1:]) if missing == [1] else (1,) * len(missing) + sizes
    axes = writer.integers(f"{word}_axes", *missing)
    return writer.add(f"{word}_raised", "Unsqueeze", [mask, axes], (full, plan.dtype))


def _spread(writer: _Writer, plan: _Plan, bias: ir.Value) -> ir.Value:
    """A bias for every query and every key: the operator repeats it over batch and heads only."""
    sizes = _sizes(bias)
    if sizes[2:] == plan.tokens:
        return bias
    counts = [writer.integers("bias_ones", 1, 1)]
    for word, operand in (("bias_queries", plan.query), ("bias_keys", plan.value)):
        counts.append(writer.size(word, operand.source, operand.axes[1]))
    shape = writer.add("bias_shape", "Concat", counts, ((4,), INT64), {"axis": 0})
    return writer.add("bias", "Expand", [bias, shape], ((*sizes[:2], *plan.tokens), plan.dtype))


def _split(writer: _Writer, plan: _Plan, fused: ir.Value) -> ir.Value:
    """What the operator makes, with its heads apart: (B, H, S, width)."""
    batch, tokens, heads, width = plan.batch, plan.tokens[0], plan.heads, plan.width
    shape = writer.integers("split_shape", 0, 0, heads, width)
    made: tuple[Sizes, Any] = (batch, tokens, heads, width), fused.dtype
    apart = writer.add("split", "Reshape", [fused, shape], made)
    made = (batch, heads, tokens, width), fused.dtype
    return writer.add("turned", "Transpose", [apart], made, {"perm": SWAPPED})


def _zeroed(writer: _Writer, plan: _Plan, whole: ir.Value, bias: ir.Value) -> ir.Value:
    """Zeros for the queries that may attend to nothing, for which the operator gives NaN."""
    rows: Sizes = (*_sizes(bias)[:3], 1)
    inputs = [bias, writer.integers("last_axis", -1)]
    most = writer.add("most", "ReduceMax", inputs, (rows, plan.dtype))
    lowest = writer.constant("lowest", _lowest(plan.dtype))
    nothing = writer.add("nothing", "Less", [most, lowest], (rows, BOOL))
    zero = writer.constant("zero", _zero(whole))
    return writer.add("zeroed", "Where", [nothing, zero, whole], (_sizes(whole), whole.dtype))


def _skip_merging(output: ir.Value, fused: ir.Value) -> None:
    """Let what merges the heads of `output` take what is merged already."""
    for turn in [use.node for use in output.uses()]:
        turned = turn.outputs[0]
        if turn.op_type != "Transpose" or _permutation(turn) != SWAPPED:
            continue
        for merge in [use.node for use in turned.uses() if use.idx == 0]:
            if merge.op_type == "Reshape" and _keeps_order(merge):
                merge.replace_input_with(0, fused)
                _skip_idle(merge)
        _prune(turn)


def _keeps_order(reshape: ir.Node) -> bool:
    """Whether it makes the same of four axes and of three, the last two of the four in one."""
    target = _elements(_input(reshape, 1))
    return reshape.attributes.get_int("allowzero", 0) == 1 or 0 not in target[2:]


def _skip_idle(reshape: ir.Node) -> None:
    source, made = _input(reshape, 0), reshape.outputs[0]
    if _agree(made, _sizes(source)) and not made.is_graph_output():
        made.replace_all_uses_with(source)
        _prune(reshape)


# Slicing


def _cut(attention: _Attention) -> tuple[ir.Value, ...]:
    """The queries, and the masks that differ between them; nothing if that is not known."""
    size = _sizes(attention.query)[-2]
    rows = {mask: (1, 1, *_sizes(mask))[-2] for mask in attention.masks}
    known = all(mask.shape is not None and rows[mask] in (1, size) for mask in rows)
    return (attention.query, *(m for m in rows if rows[m] != 1)) if known and size != 1 else ()


class _Slicing:
    def __init__(self, attention: _Attention, cut: tuple[ir.Value, ...], slices: int) -> None:
        self.attention, self.cut = attention, cut
        self.writer = _Writer(attention.output)
        self.size = _sizes(attention.query)[-2]
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
        described = _sizes(output), output.dtype
        _hand_over(output, self.writer.add("slices", "Concat", made, described, {"axis": rank - 2}))
        _prune(self.attention.nodes[-1])

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
        sizes = _sizes(value)
        name = f"{self.attention.output.name}_{word}"
        axis = {"axis": len(sizes) - 2}
        split = ir.node("Split", [value, lengths], axis, num_outputs=self.count, name=name)
        for number, piece in enumerate(split.outputs):
            piece.name = f"{name}_{number}"
            _describe(piece, (*sizes[:-2], self._length(number), sizes[-1]), value.dtype)
        self.writer.insert(split)
        return split.outputs

    def _after(self, piece: ir.Value, before: ir.Value) -> ir.Value:
        """A piece of the queries that is not there before the slice `before` has been computed.

        A compiler may run slices that do not need each other side by side, with all their scores
        in memory, and TensorRT-RTX does. So what is made of one number x of the slice before is
        added: min(|x|, 0), which is nothing.
        """
        word, sizes, dtype = f"{before.name}_then", _sizes(piece), piece.dtype
        one: Sizes = (*sizes[:-2], 1, 1)
        axes = len(sizes) - 2, len(sizes) - 1
        limits = {"starts": (0, 0), "ends": (1, 1), "axes": axes}
        inputs = [before, *(self.writer.integers(f"{word}_{k}", *v) for k, v in limits.items())]
        number = self.writer.add(f"{word}_one", "Slice", inputs, (one, before.dtype))
        number = self.writer.cast(f"{word}_one", number, dtype)
        size = self.writer.add(f"{word}_size", "Abs", [number], (one, dtype))
        zero = self.writer.constant(f"{word}_zero", _zero(piece))
        nothing = self.writer.add(f"{word}_nothing", "Min", [size, zero], (one, dtype))
        return self.writer.add(word, "Add", [piece, nothing], (sizes, dtype))

    def _copy(self, node: ir.Node, number: int, known: dict[ir.Value, ir.Value]) -> None:
        """The node on what `known` has in the place of its inputs; its output becomes known."""
        inputs = [known.get(value, value) if value is not None else None for value in node.inputs]
        (made,) = node.outputs
        name = f"{made.name}_slice{number}"
        copy = ir.node(node.op_type, inputs, node.attributes, name=name)
        copy.outputs[0].name = name
        sizes = _sizes(made)
        if sizes:
            sizes = (*sizes[:-2], self._length(number), sizes[-1])
        _describe(copy.outputs[0], sizes, made.dtype)
        self.writer.insert(copy)
        known[made] = copy.outputs[0]


# What both need


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place]
    assert value is not None
    return value


def _used_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _scalar(value: ir.Value) -> float | None:
    """The number a constant holds, if it is one that leaves shapes as they are."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 3:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def _sizes(value: ir.Value) -> Sizes:
    """Of all axes; none if their number is not known."""
    found = []
    for axis, size in enumerate(value.shape or ()):
        named = size if isinstance(size, int) else size.value
        found.append(f"?{value.name}[{axis}]" if named is None else named)
    return tuple(found)


def _describe(value: ir.Value, sizes: Sizes, dtype: ir.DataType | None) -> None:
    value.type = None if dtype is None else ir.TensorType(dtype)
    named = [None if str(size).startswith("?") else size for size in sizes]
    value.shape = ir.Shape(named) if named else None


def _elements(shape: ir.Value) -> Sizes:
    """The sizes in a tensor of sizes; none if it is not known how many there are."""
    tensor, node = ir.convenience.get_const_tensor(shape), shape.producer()
    if tensor is not None:
        return tuple(int(size) for size in tensor.numpy().reshape(-1))
    if node is not None and node.op_type == "Concat":
        parts = [_elements(_input(node, place)) for place in range(len(node.inputs))]
        return sum(parts, ()) if all(parts) else ()
    if node is not None and node.op_type == "Shape":
        sizes, limits = _sizes(_input(node, 0)), node.attributes
        return sizes[limits.get_int("start", 0) : limits.get_int("end", len(sizes))]
    if node is not None and node.op_type == "Slice" and len(node.inputs) == 3:
        start, end = (ir.convenience.get_const_tensor(_input(node, place)) for place in (1, 2))
        if start is not None and end is not None:
            return _elements(_input(node, 0))[int(start.numpy()[0]) : int(end.numpy()[0])]
    return (f"?{shape.name}",) if _sizes(shape) == (1,) else ()


def _agree(value: ir.Value, sizes: Sizes) -> bool:
    """Whether a value of as many numbers has these three sizes: two of them say so."""
    found = _sizes(value)
    if len(found) != 3 or len(sizes) != 3 or found[2] != sizes[2]:
        return False
    return found[0] == sizes[0] or found[1] == sizes[1]


def _permutation(transpose: ir.Node) -> tuple[int, ...]:
    rank = len(_sizes(_input(transpose, 0)))
    return tuple(transpose.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def _zero(like: ir.Value) -> NDArray[np.generic]:
    return np.zeros((), (like.dtype or ir.DataType.FLOAT).numpy())


def _lowest(dtype: ir.DataType) -> NDArray[np.generic]:
    held: Any = ml_dtypes.finfo  # comes without types
    return np.asarray(held(dtype.numpy()).min, dtype.numpy())


def _hand_over(old: ir.Value, new: ir.Value) -> None:
    """Let all that took `old` take `new`; an output of the graph keeps its name."""
    if old.is_graph_output():
        name, old.name = old.name, f"{old.name}_unused"
        new.name = name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _prune(node: ir.Node) -> None:
    """Remove a node that nothing takes from, and all that led only to it."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        return
    if any(value.uses() or value.is_graph_output() for value in node.outputs):
        return
    inputs = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in inputs:
        maker = value.producer()
        if maker is not None:
            _prune(maker)
        elif value.is_initializer() and not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name), None)
