from __future__ import annotations

import runpy
import socket
import sys

import pytest
from sdpack.serve.healthcheck import reason

from tests.sdpack.serve.clients import client
from tests.sdpack.serve.fakes import FakeWorker, serving


def ask_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDPACK_PORT", str(port))


def test_a_ready_server_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FakeWorker()) as (url, _, _), client(url):
        ask_at(int(url.rpartition(":")[2]), monkeypatch)
        assert reason() is None
        monkeypatch.delitem(sys.modules, "sdpack.serve.healthcheck")
        with pytest.raises(SystemExit) as ended:
            runpy.run_module("sdpack.serve.healthcheck", run_name="__main__")
    assert ended.value.code is None  # exit status 0


def test_a_loading_server_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = FakeWorker()
    worker.loadable.clear()
    with serving(worker) as (url, _, _):
        ask_at(int(url.rpartition(":")[2]), monkeypatch)
        assert reason() == '{"status":"loading"}'


def test_the_port_is_named_if_nothing_listens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ask_at(port, monkeypatch)
        assert (reason() or "").startswith(f"no answer on port {port}: ")
