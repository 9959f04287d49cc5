from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from sdpack.serve.server import Server
from sdpack.serve.service import Service

from tests.sdpack.serve.clients import (
    GENERATE,
    error,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker


def test_a_job_is_followed_step_by_step(asking: httpx.Client, worker: FakeWorker) -> None:
    worker.go.clear()
    started = asking.post("/v1/jobs", json={"prompt": "a cat", "n": 2, "seed": 1})
    assert started.status_code == 202
    path = started.headers["location"]
    assert worker.begun.wait(10)
    job = asking.get(path).json()
    assert (job["status"], job["data"]) == ("running", [])
    with asking.stream("GET", path, headers={"accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        worker.go.set()
        lines = list(stream.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event")]
    seen = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data")]
    assert names == ["progress"] * (len(names) - 1) + ["done"]
    assert [one["progress"] for one in seen] == sorted(one["progress"] for one in seen)
    assert seen[-1]["progress"] == 1.0
    assert [asking.get(one["url"]).status_code for one in seen[-1]["data"]] == [200, 200]


def test_a_cancelled_job_is_not_drawn_on(asking: httpx.Client, worker: FakeWorker) -> None:
    worker.go.clear()
    path = asking.post("/v1/jobs", json={"prompt": "a cat"}).headers["location"]
    assert worker.begun.wait(10)
    assert asking.delete(path).json()["status"] == "cancelled"
    worker.go.set()
    assert asking.post(GENERATE, json={"prompt": "next"}).status_code == 200
    assert worker.steps == [0, 4]
    assert asking.delete(path).json()["status"] == "cancelled"
    assert asking.delete("/v1/jobs/none").status_code == 404


def test_what_failed_holds_on_to_nothing(
    served: tuple[httpx.Client, Server, Service],
) -> None:
    asking, _, service = served
    path = asking.post("/v1/jobs", json={"prompt": "broken"}).headers["location"]
    wait_until(lambda: asking.get(path).json()["status"] == "failed")
    found = service.jobs.find(path.rpartition("/")[2])
    assert found is not None
    assert found.error is not None
    assert found.error.__traceback__ is None


def test_what_was_drawn_of_a_cancelled_job_is_let_go(
    served: tuple[httpx.Client, Server, Service],
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking, _, service = served
    draw = worker.draw

    def draw_a_batch_and_wait(*given: Any) -> Any:
        if worker.batches:
            worker.go.clear()
        return draw(*given)

    monkeypatch.setattr(worker, "draw", draw_a_batch_and_wait)
    path = asking.post("/v1/jobs", json={"prompt": "a", "n": 8}).headers["location"]
    wait_until(lambda: len(worker.batches) == 2 and asking.get(path).json()["made"] == 4)
    seen = asking.delete(path).json()
    assert (seen["status"], seen["made"], seen["data"]) == ("cancelled", 4, [])
    assert service.jobs.unfetched_bytes == 0
    answer = asking.get(path.replace("jobs", "images") + "/0")
    assert answer.status_code == 404
    assert "cancelled" in error(answer)["message"]
