from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from sdpack.serve.server import Server
from sdpack.serve.service import Service

from tests.sdpack.serve.clients import client
from tests.sdpack.serve.fakes import FakeWorker, serving


@pytest.fixture
def worker() -> FakeWorker:
    return FakeWorker()


@pytest.fixture
def served(worker: FakeWorker) -> Iterator[tuple[httpx.Client, Server, Service]]:
    with serving(worker) as (url, server, service), client(url) as browser:
        yield browser, server, service


@pytest.fixture
def asking(served: tuple[httpx.Client, Server, Service]) -> httpx.Client:
    return served[0]


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    """Of a server that all tests of a file ask; they leave it as it was."""
    with serving(FakeWorker()) as (url, _, _), client(url) as made:
        yield made
