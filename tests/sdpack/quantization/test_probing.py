import numpy as np
from sdpack.quantization.probing import (
    BATCHES,
    FEWEST_GROUPS,
    FORWARD,
    MOST_PROBES,
    MOST_ROWS,
    MOST_WORK,
    most_probes,
)
from sdpack.quantization.sensitivity import probing_batches


def test_a_probe_runs_no_more_rows_than_its_limits_allow() -> None:
    batches = [{"x": np.zeros((40, 3), np.float32)} for _ in range(5)]
    for numbers in (1, FORWARD // 7, FORWARD, 10 * FORWARD):
        chosen = probing_batches(batches, numbers)
        rows = sum(len(batch["x"]) for batch in chosen)
        assert 1 <= len(chosen) <= BATCHES
        assert rows <= BATCHES * MOST_ROWS
        assert rows * numbers <= FORWARD or rows == 1


def test_probes_that_take_long_are_fewer() -> None:
    assert most_probes(0) == most_probes(MOST_WORK / MOST_PROBES) == MOST_PROBES
    assert most_probes(MOST_WORK / 20) == 20
    assert most_probes(MOST_WORK) == FEWEST_GROUPS
