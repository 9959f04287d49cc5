from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import onnx_ir as ir
from sdpack.rewrite.onnx_file import read
from sdpack.rewrite.slice import slice_attention

from tests.sdpack.graphs import saved
from tests.sdpack.rewrite.attention_graphs import (
    END,
    SCALED,
    UNDERSTOOD,
    close,
    counts,
    drawn,
    run,
    small,
)


def test_a_slice_waits_for_the_one_before_it(tmp_path: Path) -> None:
    model = read(small(*UNDERSTOOD["a mask of queries and keys"], tmp_path))
    slice_attention(model, 3)
    (join,) = [node for node in model.graph if node.op_type == "Concat"]
    ends = [value.producer() for value in join.inputs if value is not None]
    for before, after in pairwise(ends):
        assert before in leading_to(after)
    order = {node: place for place, node in enumerate(model.graph)}
    places = [order[end] for end in ends if end is not None]
    assert places == sorted(places)


def leading_to(node: ir.Node | None) -> set[ir.Node]:
    found: set[ir.Node] = set()
    left = [node]
    while left:
        last = left.pop()
        for value in last.inputs if last is not None else ():
            maker = value.producer() if value is not None else None
            if maker is not None and maker not in found:
                found.add(maker)
                left.append(maker)
    return found


def test_as_many_slices_as_queries_where_they_are_few(tmp_path: Path) -> None:
    inputs = "float[N,2,5,4] q, float[N,2,T,4] k, float[N,2,T,4] v"
    path = small(inputs, SCALED + "m = Add(s, zero) " + END, "float[N,2,5,4] y", tmp_path)
    model = read(path)
    slice_attention(model, 8)
    assert counts(model)["Softmax"] == 5
    drawn_inputs = drawn(path, N=3, T=7)
    assert close(run(saved(model, tmp_path / "sliced"), drawn_inputs), run(path, drawn_inputs))
