"""Jobs that are done ahead, and what becomes of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sdpack.errors import WorkerError
from sdpack.pack.context import BuildContext
from sdpack.store.artifacts import Store
from sdpack.store.ledger import Ledger, Measurement
from sdpack.workers.executor import OneProcess
from sdpack.workers.jobs import JobResult, WorkerJob

JOBS = [WorkerJob(f"job {number}", "group", number) for number in range(3)]


class FakeExecutor:
    def __init__(self, results: Sequence[JobResult]) -> None:
        self.results = results
        self.jobs: list[WorkerJob] = []

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        self.jobs.extend(jobs)
        yield from self.results

    def rest(self) -> None:
        """Hold nothing."""


def context(tmp_path: Path, executor: Any) -> BuildContext:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    request: Any = None  # preparing jobs does not look at it
    return BuildContext(request, Store(tmp_path / "store"), ledger, executor=executor)


def row(number: int) -> Measurement:
    return Measurement("similarity", {"mix": number}, {"scores": [number / 4]}, "2026-01-01T00:00Z")


def test_rows_are_recorded_and_failures_left_to_the_caller(tmp_path: Path) -> None:
    executor = FakeExecutor(
        [JobResult(2, [row(2)]), JobResult(0, error="EngineError: no"), JobResult(1, [])]
    )
    lines: list[str] = []
    prepared, steps = (
        replace(context(tmp_path, executor), say=lines.append),
        list[tuple[int, int]](),
    )
    prepared.prepare(JOBS, lambda done, of: steps.append((done, of)))
    assert executor.jobs == JOBS
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert lines == ["job 0 failed in a worker: EngineError: no"]
    assert prepared.ledger.find("similarity", {"mix": 2}) == {"scores": [0.5]}
    assert prepared.ledger.find("similarity", {"mix": 0}) is None
    prepared.ledger.close()


def test_a_single_job_is_left_to_the_caller(tmp_path: Path) -> None:
    executor = FakeExecutor([])
    prepared = context(tmp_path, executor)
    prepared.prepare(JOBS[:1])
    prepared.prepare([])
    assert executor.jobs == []
    prepared.ledger.close()


def test_rows_that_came_before_a_worker_died_for_good_are_kept(tmp_path: Path) -> None:
    class Dying(FakeExecutor):
        def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
            yield from self.results
            raise WorkerError("job 1: 3 worker processes died of it")

    prepared = context(tmp_path, Dying([JobResult(0, [row(0)])]))
    with pytest.raises(WorkerError, match="job 1"):
        prepared.prepare(JOBS)
    assert prepared.ledger.find("similarity", {"mix": 0}) == {"scores": [0.0]}
    prepared.ledger.close()


def test_by_default_nothing_is_done_ahead(tmp_path: Path) -> None:
    prepared = context(tmp_path, OneProcess())
    prepared.prepare(JOBS, cast(Any, lambda *_: pytest.fail("a job was done")))
    prepared.ledger.close()
