from __future__ import annotations

import resource
import socket
import time
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from sdpack.serve.connection import CONNECTIONS, OTHER_DESCRIPTORS, Connection, most_connections

from tests.sdpack.serve.clients import client, wait_until
from tests.sdpack.serve.fakes import FakeWorker, serving


def address(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET"])
def test_who_does_not_ask_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(Connection, "head_s", 0.2)
    with serving(FakeWorker()) as (url, server, _), socket.create_connection(address(url)) as raw:
        raw.settimeout(10)
        raw.sendall(sent)
        try:
            while raw.recv(1000):
                pass
        except ConnectionResetError:
            pass
        wait_until(lambda: not server.server_state.connections)


def test_who_waits_for_an_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_s", 0.1)
    worker = FakeWorker()
    with serving(worker) as (url, _, _), client(url) as asking:
        worker.go.clear()
        path = asking.post("/v1/jobs", json={"prompt": "a"}).headers["location"]
        with asking.stream("GET", path, headers={"accept": "text/event-stream"}) as stream:
            time.sleep(0.4)
            worker.go.set()
            assert "event: done" in list(stream.iter_lines())


class Large(FakeWorker):
    """Draws what no encoding makes small."""

    def _picture(self, kind: object, prompt: str, seed: int) -> NDArray[np.uint8]:
        noise = np.random.default_rng(seed)
        return noise.integers(0, 256, (2000, 2000, 3), np.uint8)


def unread(url: str, path: str, count: int) -> list[socket.socket]:
    """Clients that ask, and do not read what they are answered."""
    clients = []
    for _ in range(count):
        raw = socket.create_connection(address(url))
        raw.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        clients.append(raw)
    return clients


def test_who_does_not_read_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "stalled_s", 0.3)
    held(lambda: not Connection._unread)


def test_who_reads_slowly_is_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "head_s", 0.3)
    with serving(Large()) as (url, _, _), client(url) as asking:
        asked = {"prompt": "a", "response_format": "url"}
        (one,) = asking.post("/v1/images/generations", json=asked).json()["data"]
        (raw,) = unread(url, httpx.URL(one["url"]).path, 1)
        with raw:
            raw.settimeout(10)
            wait_until(lambda: Connection._unread)
            time.sleep(1)
            head, _, body = raw.recv(2**16).partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            read = len(body)
            while read < size:
                got = len(raw.recv(2**20))
                assert got, f"cut off after {read} of {size} bytes"
                read += got


def test_there_are_descriptors_for_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1024, 524_288)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: limits.update(now=given))
    assert most_connections() == CONNECTIONS
    assert limits["now"] == (CONNECTIONS + OTHER_DESCRIPTORS, 524_288)
    limits["now"] = (1024, 2048)
    assert most_connections() == 2048 - OTHER_DESCRIPTORS
    limits["now"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert most_connections() == CONNECTIONS


def test_not_more_is_held_for_readers_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "unread_bytes", 30 * 2**20)
    held(lambda: 0 < len(Connection._unread) <= 3)


def held(true: Callable[[], bool]) -> None:
    """See that something comes true while eight clients do not read 12 MB each."""
    with serving(Large()) as (url, server, _), client(url) as asking:
        asked = {"prompt": "a", "response_format": "url"}
        (one,) = asking.post("/v1/images/generations", json=asked).json()["data"]
        answered = server.server_state.total_requests
        clients = unread(url, httpx.URL(one["url"]).path, 8)
        try:
            wait_until(lambda: server.server_state.total_requests >= answered + 8)
            wait_until(true)
            assert asking.get("/healthz").status_code == 200
            assert len(asking.get(one["url"]).content) > 10_000_000
        finally:
            for raw in clients:
                raw.close()


def test_what_is_no_http_is_told_so_in_json() -> None:
    with serving(FakeWorker()) as (url, _, _), socket.create_connection(address(url)) as raw:
        raw.settimeout(10)
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"type": "invalid_request_error"' in answer
