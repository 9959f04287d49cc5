from __future__ import annotations

import json
import socket

import httpx
import pytest
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits
from sdpack.serve.server import Server
from sdpack.serve.service import Service
from sdpack.serve.work import ImageRequest, Job

from tests.sdpack.serve.clients import (
    GENERATE,
    client,
    error,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, serving


def test_a_client_that_leaves_is_not_drawn_for(
    served: tuple[httpx.Client, Server, Service], worker: FakeWorker
) -> None:
    asking, server, service = served
    worker.go.clear()
    body = json.dumps({"prompt": "a cat"}).encode()
    head = f"POST {GENERATE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", asking.base_url.port)) as raw:
        raw.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert worker.begun.wait(10)
    drawing = service.scheduler._drawing
    assert drawing is not None
    wait_until(lambda: not drawing.is_wanted)
    worker.go.set()
    wait_until(lambda: service.scheduler.depth == 0)
    assert worker.steps == [0]
    assert not server.should_exit


def test_too_slow_is_a_504(worker: FakeWorker) -> None:
    worker.go.clear()
    settings = Settings(Limits(timeout_s=0.1, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        answer = asking.post(GENERATE, json={"prompt": "a cat"})
        assert answer.status_code == 504
        assert error(answer)["code"] == "timeout"


def test_pictures_that_were_handed_out_are_let_go(
    served: tuple[httpx.Client, Server, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, _, service = served
    jobs: list[Job] = []
    submit = service.scheduler.submit

    def remembered(asked: ImageRequest) -> Job:
        jobs.append(submit(asked))
        return jobs[-1]

    monkeypatch.setattr(service.scheduler, "submit", remembered)
    assert len(asking.post(GENERATE, json={"prompt": "a", "n": 2}).json()["data"]) == 2
    assert [picture.encoded for picture in jobs[0].images] == [None, None]
