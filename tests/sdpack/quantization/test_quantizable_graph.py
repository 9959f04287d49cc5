"""What quantization is based on, for a graph of two layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sdpack.domain.precision import Precision, Runtime
from sdpack.quantization import quantizable_graph
from sdpack.quantization.quantizable_graph import (
    CalibrationInputs,
    Fp32Graph,
    QuantizableGraph,
)
from sdpack.quantization.schemes import ABILITIES, MIXABLE, UNIFORM
from sdpack.quantization.sensitivity import nearest_rounding_gains
from sdpack.store.artifacts import Store

from tests.sdpack.graphs import chain, saved

RNG = np.random.default_rng(0)
CPU = ABILITIES[Runtime.ONNXRUNTIME_CPU]


class Calibrated:
    """A graph with one batch, and how often the batches were asked for."""

    def __init__(self, folder: Path, scale: float = 1.0) -> None:
        weights = [RNG.standard_normal(s).astype(np.float32) for s in ((64, 96), (96, 32))]
        weights[0] *= scale
        self.path = saved(chain(weights), folder / "graph")
        self.batches = [{"x": RNG.standard_normal((64, 64)).astype(np.float32)}]
        self.given = 0
        self.lines: list[str] = []
        self.store = Store(folder / "store")

    def graph(self, calibrated: bool = True) -> QuantizableGraph:
        inputs = CalibrationInputs(lambda: {"batches": "one"}, self._batches, self._batches)
        source = Fp32Graph(self.path, "graph", "g", self.path)
        return QuantizableGraph(
            source, inputs if calibrated else None, self.store, self.lines.append
        )

    def _batches(self) -> list[dict[str, np.ndarray]]:
        self.given += 1
        return self.batches


@pytest.fixture
def calibrated(tmp_path: Path) -> Calibrated:
    return Calibrated(tmp_path)


def test_everything_is_computed_once(calibrated: Calibrated) -> None:
    graph = calibrated.graph()
    first = (graph.observations().content, graph.gains())
    errors = graph.rounding_errors(MIXABLE, Precision.FP32, CPU)
    assert calibrated.given == 2, "once to observe, once to measure gains"
    calibrated.lines.clear()
    again = calibrated.graph()
    assert (again.observations().content, again.gains()) == first
    assert again.rounding_errors(MIXABLE, Precision.FP32, CPU) == errors
    assert calibrated.given == 2
    assert calibrated.lines == []


def test_gains_are_those_of_the_layers_one_by_one(calibrated: Calibrated, tmp_path: Path) -> None:
    graph = calibrated.graph()
    assert graph.observed is not None
    (tmp_path / "scratch").mkdir()
    direct = nearest_rounding_gains(
        calibrated.path, graph.observed, calibrated.batches, tmp_path / "scratch"
    )
    assert graph.gains() == pytest.approx(direct)
    assert direct.keys() == {"linear0", "linear1"}


def test_several_workers_measure_shares_of_a_large_graph_s_gains(
    calibrated: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrated.graph().gains()
    monkeypatch.setattr(quantizable_graph, "LARGE_BYTES", 0)
    monkeypatch.setattr(quantizable_graph, "GAIN_SHARES", 2)
    calibrated.store = Store(tmp_path / "another")
    assert calibrated.graph().gain_shares == 2
    calibrated.graph().measure_share(1)
    given = calibrated.given
    calibrated.graph().measure_share(1)
    assert calibrated.given == given, "it is in the store"
    gains = calibrated.graph().gains()
    assert gains == whole
    assert list(gains) == list(whole)


def test_fewer_bits_have_larger_errors(calibrated: Calibrated) -> None:
    errors = calibrated.graph().rounding_errors(MIXABLE, Precision.FP32, CPU)
    for by_scheme in errors.values():
        assert 0 < by_scheme["w8"] < by_scheme["w4:32"]


def test_without_calibration_nothing_is_kept_out_of_fp16(calibrated: Calibrated) -> None:
    graph = calibrated.graph(calibrated=False)
    assert graph.observed is None
    assert graph.fp32_nodes(Precision.FP16) == frozenset()
    schemes = graph.uniform_schemes(UNIFORM[Precision.W8], {"linear1"})
    assert schemes == {"linear0": UNIFORM[Precision.W8]}
    assert calibrated.given == 0


def test_nodes_that_overflow_fp16_compute_in_fp32(tmp_path: Path) -> None:
    graph = Calibrated(tmp_path, scale=1e5).graph()
    assert "linear0" in graph.fp32_nodes(Precision.FP16)
    assert graph.fp32_nodes(Precision.FP32) == frozenset()
