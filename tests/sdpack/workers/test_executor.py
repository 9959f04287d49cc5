from __future__ import annotations

from sdpack.workers.executor import OneProcess
from sdpack.workers.jobs import WorkerJob


def test_one_process_leaves_every_job_to_its_caller() -> None:
    assert list(OneProcess().run([WorkerJob("drawing", "group", None)])) == []
