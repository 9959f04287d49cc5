"""A worker process on its own, with the pool's ends of its pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import pytest
from sdpack.workers.jobs import JobResult
from sdpack.workers.pool import WORKER_MODULE, Said

from tests.sdpack.workers import handles

ROOT = Path(__file__).parents[3]
LIMIT_S = 60


@dataclass
class Started:
    process: subprocess.Popen[bytes]
    connection: Connection
    alive: int


@pytest.fixture
def worker() -> Iterator[Started]:
    connection, remote = Pipe()
    theirs, ours = os.pipe()
    paths = [str(ROOT), str(ROOT / "deploy"), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", WORKER_MODULE, str(remote.fileno()), str(theirs)],
        pass_fds=(remote.fileno(), theirs),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    remote.close()
    os.close(theirs)
    started = Started(process, connection, ours)
    yield started
    process.kill()
    process.wait()
    connection.close()
    if started.alive >= 0:
        os.close(started.alive)


def test_it_does_jobs_until_the_connection_is_closed(worker: Started) -> None:
    worker.connection.send(handles.open_talking)
    worker.connection.send((7, "export"))
    assert worker.connection.recv() == Said("doing export")
    assert worker.connection.recv() == JobResult(7, "export")
    worker.connection.close()
    assert worker.process.wait(LIMIT_S) == 0


def test_a_failed_job_is_a_result(worker: Started) -> None:
    worker.connection.send(handles.open_failing)
    worker.connection.send((0, "infeasible"))
    assert worker.connection.recv() == JobResult(0, error="InfeasibleError: nothing fits")


def test_it_ends_with_its_caller_in_the_middle_of_a_job(worker: Started, tmp_path: Path) -> None:
    worker.connection.send(handles.open_sleeping)
    worker.connection.send((0, tmp_path / "pid"))
    os.close(worker.alive)
    worker.alive = -1
    assert worker.process.wait(LIMIT_S) == 1
