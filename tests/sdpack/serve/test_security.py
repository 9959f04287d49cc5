from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.security import Dressed, KeyFileError, host_name, read_keys

from tests.sdpack.serve.clients import (
    GENERATE,
    KEY,
    client,
    error,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, serving


def test_only_who_has_a_key_gets_in(worker: FakeWorker) -> None:
    settings = Settings(Limits(wait_s=0), keys=(KEY, "another-key-of-ours"))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        for headers in (
            {},
            {"authorization": f"Bearer {KEY}x"},
            {"authorization": KEY},
            {"authorization": f"Basic {KEY}!"},
        ):
            answer = asking.post(GENERATE, json={"prompt": "a"}, headers=headers)
            assert answer.status_code == 401
            assert error(answer)["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/metrics", "/capabilities", "/v1/models", "/openapi.json", "/nothing"):
            assert asking.get(path).status_code == 401
        for path in ("/", "/healthz", "/readyz"):
            assert asking.get(path).status_code == 200
        basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
        for headers in (
            {"authorization": f"Bearer {KEY}"},
            {"authorization": f"Basic {basic}"},
            {"authorization": "bearer another-key-of-ours"},
            {"x-api-key": KEY},
        ):
            answer = asking.post(GENERATE, json={"prompt": "a"}, headers=headers)
            assert answer.status_code == 200
    assert worker.batches == [["a"]] * 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("# none\n\n", "holds no key"),
        ("short", "shorter"),
        ("ä" * 20, "ASCII"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=said):
        read_keys(path)
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(tmp_path / "absent")


def test_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n{KEY}\n\n  another-key-of-ours  \n")
    assert read_keys(path) == [KEY, "another-key-of-ours"]


def test_a_request_may_be_only_so_large(worker: FakeWorker) -> None:
    settings = Settings(Limits(body_bytes=1000, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        answer = asking.post(GENERATE, json={"prompt": "x" * 2000})
        assert answer.status_code == 413
        assert "1000 bytes" in error(answer)["message"]

        def pieces() -> Iterator[bytes]:
            yield from (b" " * 100 for _ in range(30))

        answer = asking.post(GENERATE, content=pieces())  # says nothing of its length
        assert answer.status_code == 413


def test_a_request_has_to_arrive_in_time(worker: FakeWorker) -> None:
    settings = Settings(Limits(read_s=0.2, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        where = ("127.0.0.1", asking.base_url.port)
        with socket.create_connection(where) as raw:
            raw.sendall(b"POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{")
            assert raw.recv(1000).startswith(b"HTTP/1.1 408")
    assert worker.batches == []


def test_only_known_names_are_answered(worker: FakeWorker) -> None:
    with serving(worker, Settings(hosts=["sd.example"])) as (url, _, _), client(url) as asking:
        for host in ("LOCALHOST:1", "127.0.0.1", "[::1]:80", "10.0.0.7:8188", "sd.example"):
            assert asking.get("/v1/models", headers={"host": host}).status_code == 200
        for host in ("rebound.example", "localhost.example", ""):
            answer = asking.get("/v1/models", headers={"host": host})
            assert answer.status_code == 421
            assert error(answer)["code"] == "unknown_host"
            assert asking.get("/healthz", headers={"host": host}).status_code == 200
    with serving(worker, Settings(keys=[KEY])) as (url, _, _), client(url) as asking:
        headers = {"host": "any.example", "x-api-key": KEY}
        assert asking.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("path", [GENERATE, "/v1/jobs", "/sdapi/v1/txt2img", "/sdapi/v1/interrupt"])
def test_pages_of_other_origins_can_do_nothing(
    asking: httpx.Client, worker: FakeWorker, path: str
) -> None:
    for origin in ("https://theirs.example", "null", "http://127.0.0.1:1"):
        answer = asking.post(path, json={"prompt": "a"}, headers={"origin": origin})
        assert answer.status_code == 403
        assert error(answer)["code"] == "unknown_origin"
    assert worker.batches == []
    own = str(asking.base_url).rstrip("/")
    answer = asking.post(path, json={"prompt": "a"}, headers={"origin": own})
    assert answer.status_code < 300


def test_more_requests_than_it_takes_are_refused_but_for_probes(worker: FakeWorker) -> None:
    worker.go.clear()
    settings = Settings(Limits(requests=2, wait_s=0))
    with (
        serving(worker, settings) as (url, _, service),
        client(url) as asking,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(asking.post, GENERATE, json={"prompt": "a"}) for _ in range(2)]
        wait_until(lambda: service.scheduler.depth == 2)
        answer = asking.get("/v1/models")
        assert answer.status_code == 503
        assert error(answer)["code"] == "unavailable"
        assert asking.get("/readyz").status_code == 200
        worker.go.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert asking.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost", "localhost"), ("Localhost:80", "localhost"), ("[::1]:80", "::1"), ("", "")],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


def test_other_origins_only_where_they_are_named(worker: FakeWorker) -> None:
    asks = {"origin": "https://ours.example", "access-control-request-method": "POST"}
    with serving(worker) as (url, _, _), client(url) as asking:
        assert "access-control-allow-origin" not in asking.options(GENERATE, headers=asks).headers
    named = Settings(origins=("https://ours.example",), keys=(KEY,))
    with serving(worker, named) as (url, _, _), client(url) as asking:
        answer = asking.options(GENERATE, headers=asks)
        assert answer.headers["access-control-allow-origin"] == "https://ours.example"
        refused = asking.options(GENERATE, headers={**asks, "origin": "https://theirs.example"})
        assert "access-control-allow-origin" not in refused.headers


def test_every_answer_has_its_headers(asking: httpx.Client) -> None:
    for path in ("/", "/healthz", "/nothing", "/metrics"):
        headers = asking.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_a_mistake_of_the_servers_own_is_told_and_counted_like_all() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a mistake")

    metrics = Metrics(1, 100)
    app = Dressed(broken, metrics)
    with httpx.Client(transport=OfApp(app), base_url="http://here") as asking:
        answer = asking.get("/")
    assert answer.status_code == 500
    assert "a mistake" not in answer.text
    assert error(answer)["type"] == "server_error"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b'sdpack_responses_total{status="500"} 1.0' in metrics.exposition()


class OfApp(httpx.BaseTransport):
    """An application asked without a network."""

    def __init__(self, app: Any) -> None:
        self._inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            answer = await self._inner.handle_async_request(request)
            body = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=body)

        return asyncio.run(ask())
