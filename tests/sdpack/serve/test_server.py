from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
from sdpack.serve.server import Server
from sdpack.serve.service import Service

from tests.sdpack.serve.clients import (
    GENERATE,
    client,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, serving


def test_told_to_end_it_finishes_what_it_accepted(
    served: tuple[httpx.Client, Server, Service], worker: FakeWorker
) -> None:
    asking, server, service = served
    worker.go.clear()
    with ThreadPoolExecutor(2) as pool:
        drawing = [pool.submit(asking.post, GENERATE, json={"prompt": "a"}) for _ in range(2)]
        path = asking.post("/v1/jobs", json={"prompt": "b"}).headers["location"]
        wait_until(lambda: service.scheduler.depth == 3)
        server.handle_exit(15, None)
        wait_until(lambda: asking.get("/readyz").status_code == 503)
        assert asking.get("/readyz").json() == {"status": "ending"}
        refused = asking.post(GENERATE, json={"prompt": "too late"})
        assert refused.status_code == 503
        worker.go.set()
        assert [one.result().status_code for one in drawing] == [200, 200]
        wait_until(lambda: asking.get(path).json()["status"] == "done")
        assert not server.should_exit, "its picture was not fetched yet"
        (one,) = asking.get(path).json()["data"]
        assert asking.get(one["url"]).status_code == 200
        wait_until(lambda: server.should_exit)
    assert worker.batches.count(["too late"]) == 0


def test_a_second_signal_ends_it_at_once(worker: FakeWorker) -> None:
    worker.go.clear()
    with (
        serving(worker) as (url, server, service),
        ThreadPoolExecutor(1) as pool,
        client(url) as asking,
    ):
        waiting = pool.submit(asking.post, GENERATE, json={"prompt": "a", "n": 8})
        assert worker.begun.wait(10)
        server.handle_exit(2, None)
        wait_until(lambda: service.scheduler.ending)
        assert not server.should_exit
        server.handle_exit(2, None)
        assert server.should_exit
        wait_until(lambda: service.scheduler.depth <= 4)
        worker.go.set()
        if waiting.exception() is None:  # the server may be gone before it can say so
            assert waiting.result().status_code == 503
    assert worker.steps == [0]
