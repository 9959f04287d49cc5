from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sdpack.rewrite.fuse import fuse_attention
from sdpack.rewrite.onnx_file import read
from sdpack.rewrite.slice import slice_attention

from tests.sdpack.graphs import linear, saved
from tests.sdpack.rewrite.attention_graphs import (
    END,
    HEADS,
    NOT_UNDERSTOOD,
    OUT,
    SCALED,
    UNDERSTOOD,
    close,
    counts,
    drawn,
    fused_attention_graph,
    run,
    small,
)


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_is_understood_is_fused_and_sliced(name: str, tmp_path: Path) -> None:
    path = small(*UNDERSTOOD[name], tmp_path)
    fused, sliced = read(path), read(path)
    assert fuse_attention(fused) == slice_attention(sliced, 3) == 1
    assert fuse_attention(fused) == 0
    after = [saved(model, tmp_path / word) for model, word in ((fused, "f"), (sliced, "s"))]
    for queries in (5, 2):  # the second less than there are slices
        inputs = drawn(path, N=3, S=queries, T=7)
        wanted = run(path, inputs)
        assert np.isfinite(wanted).all()
        assert all(close(run(other, inputs), wanted) for other in after)


def test_a_query_that_may_attend_to_nothing_gets_zeros(tmp_path: Path) -> None:
    path = small(*UNDERSTOOD["a mask of infinity, guarded"], tmp_path)
    model = read(path)
    fuse_attention(model)
    made = run(saved(model, tmp_path / "fused"), drawn(path, N=3, S=5, T=7))
    assert not made[:, :, 0].any()
    assert made[:, :, 1:].all()


def test_a_mask_that_adds_nothing_is_dropped(tmp_path: Path) -> None:
    """Only without a mask does ONNX Runtime's CPU kernel do without all scores."""
    name = "no heads and a mask of nothing, as baddbmm has it"
    model = read(small(*UNDERSTOOD[name], tmp_path))
    fuse_attention(model)
    (node,) = fused_attention_graph(model)
    assert len(node.inputs) == 3


def test_a_mask_is_repeated_for_all_queries_once(tmp_path: Path) -> None:
    again = "kt2 = Identity(kt) a2 = MatMul(y1, kt2) m2 = Add(a2, b) p2 = Softmax<axis=-1>(m2) "
    body = SCALED + "m = Add(s, b) p = Softmax<axis=-1>(m) y1 = MatMul(p, v) " + again
    model = read(small(f"{HEADS}, float[N,1,1,T] b", body + "y = MatMul(p2, v)", OUT, tmp_path))
    assert fuse_attention(model) == 2
    assert counts(model)["Expand"] == 1


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_left_alone(name: str, tmp_path: Path) -> None:
    path = small(*NOT_UNDERSTOOD[name], tmp_path)
    model = read(path)
    before = wired(model)
    assert fuse_attention(model) == 0
    assert wired(model) == before
    inputs = drawn(path, N=3, S=5, T=7)
    assert close(run(saved(model, tmp_path / "same"), inputs), run(path, inputs))


def wired(model: ir.Model) -> list[tuple[str, ...]]:
    """Every node and what it takes and makes, by name."""
    return [
        (node.op_type, *(str(value and value.name) for value in (*node.inputs, *node.outputs)))
        for node in model.graph
    ]


def test_heads_of_a_batch_that_is_not_known_to_be_the_same_are_left_alone(tmp_path: Path) -> None:
    inputs = HEADS.replace("float[N,2,T,4] k", "float[M,2,T,4] k")
    path = small(inputs, SCALED + "m = Add(s, zero) " + END, "float[L,2,S,4] y", tmp_path)
    model = read(path)
    assert fuse_attention(model) == 0
    wide = drawn(path, N=3, M=1, S=5, T=7)
    assert run(saved(model, tmp_path / "same"), wide).shape == (3, 2, 5, 4)


def test_a_graph_without_attention_is_left_alone() -> None:
    for change in (fuse_attention, lambda model: slice_attention(model, 4)):
        model = linear(np.ones((3, 2), np.float32))
        before = ir.to_proto(model).SerializeToString()
        assert change(model) == 0
        assert ir.to_proto(model).SerializeToString() == before
