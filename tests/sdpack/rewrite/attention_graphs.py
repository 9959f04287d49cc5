"""Attention written out as models write it, each way a graph of a few operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from sdpack.engines.onnxruntime import load
from sdpack.export.graph import OPSET
from sdpack.rewrite.fuse import FUSED
from sdpack.rewrite.onnx_file import read

from tests.sdpack.graphs import saved

Arrays = dict[str, np.ndarray]
HEADS = "float[N,2,S,4] q, float[N,2,T,4] k, float[N,2,T,4] v"
NO_HEADS = "float[N,S,4] q, float[N,T,4] k, float[N,T,4] v"
SPLIT = "float[N,S,2,4] q, float[N,T,2,4] k, float[N,T,2,4] v"
OUT, NO_HEADS_OUT, MERGED_OUT = "float[N,2,S,4] y", "float[N,S,4] y", "float[N,S,8] y"
CONSTANTS = """
    half = Constant<value_float=0.5>()
    zero = Constant<value_float=0.0>()
    lowest = Constant<value=float {-3.4028234e38}>()
    infinite = Constant<value=float {-inf}>()
"""
PRODUCT = "kt = Transpose<perm=[0,1,3,2]>(k) a = MatMul(q, kt) "
NO_HEADS_PRODUCT = "kt = Transpose<perm=[0,2,1]>(k) a = MatMul(q, kt) "
SCALED = PRODUCT + "s = Mul(half, a) "
END = "p = Softmax<axis=-1>(m) y = MatMul(p, v)"
GUARDED_END = "p = Softmax<axis=-1>(m) nan = IsNaN(p) g = Where(nan, zero, p) y = MatMul(g, v) "
UNDERSTOOD = {
    "scores in parts": (HEADS, PRODUCT + "m = Div(a, half) " + END, OUT),
    "no scale": (HEADS, PRODUCT + "p = Softmax<axis=3>(a) y = MatMul(p, v)", OUT),
    "scaled queries and keys": (
        HEADS,
        "t = Mul(k, half) kt = Transpose<perm=[0,1,3,2]>(t) r = Div(q, half) m = MatMul(r, kt) "
        + END,
        OUT,
    ),
    "split and merged heads": (
        SPLIT,
        "qt = Transpose<perm=[0,2,1,3]>(q) kt = Transpose<perm=[0,2,3,1]>(k) "
        "vt = Transpose<perm=[0,2,1,3]>(v) m = MatMul(qt, kt) p = Softmax<axis=-1>(m) "
        "o = MatMul(p, vt) t = Transpose<perm=[0,2,1,3]>(o) "
        "shape = Constant<value_ints=[0,0,-1]>() y = Reshape(t, shape)",
        MERGED_OUT,
    ),
    "heads merged by a size that is copied from the last axes": (
        HEADS,
        PRODUCT + "p = Softmax<axis=-1>(a) o = MatMul(p, v) t = Transpose<perm=[0,2,1,3]>(o) "
        "shape = Constant<value_ints=[-1,1,0,0]>() y = Reshape(t, shape)",
        "float[M,1,2,4] y",
    ),
    "an output that is used twice": (
        HEADS,
        PRODUCT + "p = Softmax<axis=-1>(a) o = MatMul(p, v) "
        "t = Transpose<perm=[0,2,1,3]>(o) u = Relu(t) r = Transpose<perm=[0,2,1,3]>(u) "
        "y = Add(r, o)",
        OUT,
    ),
    "a mask of queries and keys": (f"{HEADS}, float[S,T] b", SCALED + "m = Add(s, b) " + END, OUT),
    "a mask of heads": (f"{HEADS}, float[2,S,T] b", SCALED + "m = Add(b, s) " + END, OUT),
    "a mask of keys": (f"{HEADS}, float[N,1,1,T] b", SCALED + "m = Add(s, b) " + END, OUT),
    "two masks": (
        f"{HEADS}, float[1,2,S,T] b, float[N,1,1,T] c",
        SCALED + "n = Add(s, b) m = Add(n, c) " + END,
        OUT,
    ),
    "a mask of the lowest number, guarded": (
        f"{HEADS}, bool[N,1,S,T] b",
        SCALED + "c = Where(b, zero, lowest) m = Add(s, c) " + GUARDED_END,
        OUT,
    ),
    "a mask of infinity, guarded": (
        f"{HEADS}, bool[N,1,S,T] b",
        SCALED + "c = Where(b, zero, infinite) m = Add(s, c) " + GUARDED_END,
        OUT,
    ),
    "no heads": (NO_HEADS, NO_HEADS_PRODUCT + "m = Mul(a, half) " + END, NO_HEADS_OUT),
    "no heads and a mask": (
        f"{NO_HEADS}, float[N,S,T] b",
        NO_HEADS_PRODUCT + "m = Add(a, b) " + END,
        NO_HEADS_OUT,
    ),
    "no heads and a mask of nothing, as baddbmm has it": (
        NO_HEADS,
        NO_HEADS_PRODUCT
        + "s = Mul(a, half) rows = Shape<end=2>(q) columns = Shape<start=1, end=2>(k) "
        + "sizes = Concat<axis=0>(rows, columns) e = Expand(zero, sizes) n = Mul(e, zero) "
        + "m = Add(s, n) "
        + END,
        NO_HEADS_OUT,
    ),
}
NOT_UNDERSTOOD = {
    "scores that are an output": (
        HEADS,
        SCALED + "p = Softmax<axis=-1>(s) y = MatMul(p, v)",
        f"{OUT}, float[N,2,S,T] s",
    ),
    "weights that are used twice": (
        HEADS,
        SCALED + "p = Softmax<axis=-1>(s) o = MatMul(p, v) r = MatMul(p, v) y = Add(o, r)",
        OUT,
    ),
    "scores that are bent": (HEADS, SCALED + "m = Tanh(s) " + END, OUT),
    "a mask that is scaled": (
        f"{HEADS}, float[S,T] b",
        PRODUCT + "n = Add(a, b) m = Mul(n, half) " + END,
        OUT,
    ),
    "a softmax over queries": (HEADS, PRODUCT + "p = Softmax<axis=2>(a) y = MatMul(p, v)", OUT),
    "one head of keys for all": (
        "float[N,2,S,4] q, float[N,1,T,4] k, float[N,2,T,4] v",
        PRODUCT + "m = Mul(half, a) " + END,
        OUT,
    ),
    "values of one batch for all": (
        "float[N,2,S,4] q, float[N,2,T,4] k, float[1,2,T,4] v",
        PRODUCT + "m = Mul(half, a) " + END,
        OUT,
    ),
    "a mask that makes a batch of one a batch of many": (
        "float[1,2,S,4] q, float[1,2,T,4] k, float[1,2,T,4] v, float[N,1,S,T] b",
        SCALED + "m = Add(s, b) " + END,
        OUT,
    ),
    "no heads, and a mask of infinity, guarded": (
        f"{NO_HEADS}, bool[N,S,T] b",
        NO_HEADS_PRODUCT + "c = Where(b, zero, infinite) m = Add(a, c) " + GUARDED_END,
        NO_HEADS_OUT,
    ),
}


def small(inputs: str, body: str, output: str, folder: Path) -> Path:
    head = f'<ir_version: 10, opset_import: ["" : {OPSET}]> small'
    text = f"{head} ({inputs}) => ({output}) {{ {CONSTANTS} {body} }}"
    return saved(ir.from_proto(onnx.parser.parse_model(text)), folder)


def drawn(path: Path, **sizes: int) -> Arrays:
    """Inputs for a graph; where a mask says yes or no, the first query attends to nothing."""
    rng, found = np.random.default_rng(0), Arrays()
    for value in read(path).graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        shape = [size if isinstance(size, int) else sizes[str(size.value)] for size in value.shape]
        found[value.name] = 2 * rng.standard_normal(shape, np.float32)
        if value.dtype is ir.DataType.BOOL:
            found[value.name] = found[value.name] < 0
            found[value.name][..., 0, :] = False
    return found


def run(path: Path, inputs: Arrays) -> np.ndarray:
    """The first output."""
    with load(path, threads=1) as session:
        return next(iter(session.run(inputs).values()))


def counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def close(seen: np.ndarray, wanted: np.ndarray, relative: float = 1e-5) -> bool:
    assert seen.dtype == wanted.dtype
    return seen.shape == wanted.shape and bool(
        np.abs(seen - wanted).max() <= relative * np.abs(wanted).max()
    )


def fused_attention_graph(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == FUSED]
