from __future__ import annotations

from pathlib import Path

import pytest
from sdpack.errors import EngineError, GraphError, UnsupportedGraphError
from sdpack.quantization.scratch import reported_as

GIVEN, SCRATCH = Path("models/unet.onnx"), Path("scratch/a1/model.onnx")


def test_an_engine_s_error_names_the_graph_that_was_given() -> None:
    with pytest.raises(UnsupportedGraphError) as caught, reported_as(GIVEN, SCRATCH):
        raise UnsupportedGraphError(f"{SCRATCH} does not load: no kernel")
    assert str(caught.value) == f"{GIVEN} does not load: no kernel"
    assert isinstance(caught.value.__cause__, EngineError)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(GraphError, match=str(SCRATCH)), reported_as(GIVEN, SCRATCH):
        raise GraphError(f"{SCRATCH} is no graph")
