"""The files of a graph's artifact: the graph itself, and other forms that share its weights.

model.onnx      the graph, with its weights in model.onnx.data
fused_attention.onnx  attention as one operator, as ONNX Runtime runs it best
sliced.onnx     attention computed slice by slice, for TensorRT in fp32
stem and tail   of a decoder, for decoding in tiles; split.json says how it is split
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from sdpack.domain.tiles import Split
from sdpack.rewrite.fuse import fuse_attention
from sdpack.rewrite.onnx_file import DATA_FILE, MODEL_FILE, read, write_beside
from sdpack.rewrite.slice import slice_attention
from sdpack.rewrite.tiles import write_split
from sdpack.store.artifacts import Artifact

FUSED_ATTENTION_FILE = "fused_attention.onnx"
SLICED_FILE = "sliced.onnx"
SPLIT_FILE = "split.json"
SLICES = 8  # of attention, where the compiler does not fuse it


def write_fused_attention(folder: Path) -> None:
    """Write a second form of a folder's graph, with attention fused into one operator.

    Compilers need attention as separate operators; ONNX Runtime is faster with one.
    """
    model = read(folder / MODEL_FILE)
    if fuse_attention(model):
        write_beside(model, folder / FUSED_ATTENTION_FILE)


def write_sliced(folder: Path) -> None:
    """Write a second form of a folder's graph, with attention computed slice by slice.

    TensorRT-RTX fuses attention in 16 bits. In fp32, it holds the scores of all pairs of tokens.
    """
    model = read(folder / MODEL_FILE)
    if slice_attention(model, SLICES):
        write_beside(model, folder / SLICED_FILE)


def write_pieces(folder: Path) -> None:
    """Write a decoder's stem and tail for decoding in tiles, if it can be split."""
    sliced = folder / SLICED_FILE
    split = write_split(sliced if sliced.exists() else folder / MODEL_FILE)
    if split is not None:
        (folder / SPLIT_FILE).write_text(json.dumps(asdict(split), indent=1) + "\n")


def split_of(graph: Artifact) -> Split | None:
    """How the decoder of an artifact is split; None if it is not."""
    if SPLIT_FILE not in graph.files:
        return None
    return Split(**json.loads(graph.path(SPLIT_FILE).read_text()))


def fused_attention_graph(graph: Artifact) -> Path:
    """The graph of an artifact that ONNX Runtime runs in the least memory and time."""
    return graph.path(FUSED_ATTENTION_FILE if FUSED_ATTENTION_FILE in graph.files else MODEL_FILE)


def stored_bytes(graph: Artifact) -> int:
    """Bytes of an artifact's graph and its weights, without the other forms of it."""
    return sum(
        graph.path(name).stat().st_size for name in (MODEL_FILE, DATA_FILE) if name in graph.files
    )
