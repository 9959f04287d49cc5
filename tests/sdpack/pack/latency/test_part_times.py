from __future__ import annotations

import time

import numpy as np
import pytest
from sdpack.engines.session import Arrays
from sdpack.pack.latency import part_times
from sdpack.pack.latency.part_times import RUNS, timed


class Session:
    def __init__(self) -> None:
        self.runs = 0
        self.closed = False

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        self.runs += 1
        time.sleep(0.05 if self.runs == 1 else 0.001)
        return dict(inputs)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_the_first_run_does_not_count() -> None:
    session = Session()
    found = timed(lambda: session, {})
    assert found.run_s < 0.05
    assert (session.runs, session.closed) == (1 + RUNS, True)


def test_a_slow_part_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_times, "SLOW_S", 0.01)
    session = Session()
    found = timed(lambda: session, {})
    assert found.run_s >= 0.05
    assert session.runs == 1
