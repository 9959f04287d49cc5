from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sdpack.errors import EngineError
from sdpack.serve.server import Server
from sdpack.serve.service import Service

from tests.sdpack.serve.clients import (
    GENERATE,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, serving


@pytest.mark.parametrize(
    "refusal", [EngineError("unet.plan: too little memory"), RuntimeError("a loader's own")]
)
def test_a_server_whose_engines_cannot_be_loaded_ends(refusal: Exception) -> None:
    worker = FakeWorker()
    worker.refusal = refusal
    with serving(worker) as (_, server, service):
        wait_until(lambda: server.should_exit)
        assert not service.ready
        assert str(refusal) in str(service.failed)
    assert worker.closed


def test_while_engines_are_loaded_it_is_alive_and_not_ready() -> None:
    worker = FakeWorker()
    worker.loadable.clear()
    with serving(worker) as (url, _, _), httpx.Client(base_url=url) as asking:
        assert asking.get("/healthz").status_code == 200
        assert asking.get("/readyz").json() == {"status": "loading"}
        answer = asking.post(GENERATE, json={"prompt": "a cat"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        worker.loadable.set()
        wait_until(lambda: asking.get("/readyz").status_code == 200)


def test_failures_in_a_row_are_no_end_while_anything_can_be_drawn(
    served: tuple[httpx.Client, Server, Service],
) -> None:
    asking, server, _ = served
    for _ in range(7):
        assert asking.post(GENERATE, json={"prompt": "fail"}).status_code == 500
    assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 200
    assert not server.should_exit


def test_a_server_that_can_draw_nothing_any_more_ends(
    served: tuple[httpx.Client, Server, Service], worker: FakeWorker
) -> None:
    asking, server, service = served
    worker.refusal = EngineError("the device is lost")
    for _ in range(2):
        assert asking.post(GENERATE, json={"prompt": "fail"}).status_code == 500
    worker.go.clear()
    worker.begun.clear()
    with ThreadPoolExecutor(6) as pool:
        more = [pool.submit(asking.post, GENERATE, json={"prompt": "fail"}) for _ in range(6)]
        wait_until(lambda: service.scheduler.depth == 6)
        worker.go.set()
        assert {one.result().status_code for one in more} <= {500, 503}
    wait_until(lambda: server.should_exit)
    assert "the device is lost" in str(service.failed)
    assert len(worker.batches) == 3
    assert service.scheduler.depth == 0
