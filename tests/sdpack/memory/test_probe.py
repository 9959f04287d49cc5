from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from sdpack.errors import EngineError
from sdpack.export.graph import OPSET
from sdpack.memory.predict import Footprint
from sdpack.memory.probe import Probe, probe, process_bytes

from tests.sdpack.graphs import linear, saved

MIB = 2**20


def test_a_part_takes_its_weights_and_while_it_runs_its_activations(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((2048, 4096)).astype(np.float32)
    path = saved(linear(weight), tmp_path)
    few = probe(path, {"x": (1, 2048)}, threads=1).footprint
    many = probe(path, {"x": (4096, 2048)}, threads=1).footprint
    for seen in (few, many):
        assert 0.9 * weight.nbytes < seen.weight_bytes < 1.5 * weight.nbytes
    output = 4096 * 4096 * 4
    assert many.activation_bytes > 0.9 * output > 1.5 * few.activation_bytes
    assert few.residue_bytes < 0.2 * weight.nbytes


def test_the_process_alone() -> None:
    tokenizer = Path(__file__).parents[3] / "zoo" / "parts" / "tokenizer"
    assert 40 * MIB < process_bytes(tokenizer) < 300 * MIB
    with pytest.raises(EngineError, match="cannot be measured"):
        process_bytes(Path("nowhere"))


def test_a_graph_that_does_not_run_is_told(tmp_path: Path) -> None:
    path = saved(linear(np.eye(4, dtype=np.float32)), tmp_path)
    with pytest.raises(EngineError, match="cannot be measured"):
        probe(path, {"x": (1, 5)})
    with pytest.raises(EngineError, match="cannot be measured"):
        probe(tmp_path / "none.onnx", {"x": (1, 4)})


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "INT64", "INT32", "BOOL"])
def test_inputs_are_what_the_graph_reads_whatever_they_are_called(
    dtype: str, tmp_path: Path
) -> None:
    """Stable Diffusion XL's time_ids are float32, and a mask of PixArt's is int64."""
    given = ir.Value(
        name="time_ids", type=ir.TensorType(ir.DataType[dtype]), shape=ir.Shape(["N", 4])
    )
    made = ir.Value(name="y", type=given.type, shape=given.shape)
    node = ir.node("Identity", [given], outputs=[made])
    graph = ir.Graph([given], [made], nodes=[node], opset_imports={"": OPSET}, name="test")
    path = saved(ir.Model(graph, ir_version=10), tmp_path)
    assert probe(path, {"time_ids": (3, 4)}, threads=1).before > 0


def test_a_footprint_is_never_negative() -> None:
    assert Probe(before=10, after=5, peak=8, left=4).footprint == Footprint(0, 0, 0)
