"""How moments are cut, and how many layers fit into memory at once."""

from __future__ import annotations

import numpy as np
import pytest
from sdpack.quantization.layers import Layer, layers
from sdpack.quantization.moment_runs import (
    FEWEST_COLUMNS_TO_CUT,
    RUN,
    column_runs,
    threads_for_layers,
    working_bytes,
)

from tests.sdpack.graphs import convolution, linear


def of_columns(columns: int) -> Layer:
    (layer,) = layers(linear(np.zeros((columns, 64), np.float32)))
    return layer


@pytest.mark.parametrize("columns", [64, RUN, FEWEST_COLUMNS_TO_CUT])
def test_few_columns_are_one_run(columns: int) -> None:
    assert column_runs(of_columns(columns)) == [(0, columns)]


@pytest.mark.parametrize("columns", [FEWEST_COLUMNS_TO_CUT + 1, 5 * RUN, 10_000])
def test_runs_of_many_columns_cover_each_once(columns: int) -> None:
    runs = column_runs(of_columns(columns))
    assert [start for start, _ in runs] == [0, *(stop for _, stop in runs[:-1])]
    assert runs[-1][1] == columns
    assert max(stop - start for start, stop in runs) <= RUN


def test_a_run_of_a_convolution_has_whole_channels() -> None:
    (layer,) = layers(convolution(np.zeros((2, 600, 3, 3), np.float32)))
    assert layer.summed > FEWEST_COLUMNS_TO_CUT
    assert all((stop - start) % 9 == 0 for start, stop in column_runs(layer))


def test_layers_are_fewer_at_a_time_if_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = of_columns(64), of_columns(4000)
    assert working_bytes(large) > 4 * 4000**2
    assert working_bytes(of_columns(5 * RUN)) < working_bytes(large)
    monkeypatch.setenv("SDPACK_THREADS", "8")
    monkeypatch.setattr(
        "sdpack.quantization.threads.memory_bytes", lambda: 3 * 2 * working_bytes(large)
    )
    assert threads_for_layers([small]) == 8
    assert threads_for_layers([small, large]) == 2
    assert threads_for_layers([]) == 8
