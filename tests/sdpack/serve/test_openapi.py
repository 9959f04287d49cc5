"""Requests made up from the server's own description of itself."""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import positive_data_acceptance
from sdpack.serve.app import Settings
from sdpack.serve.connection import Connection
from sdpack.serve.limits import Limits
from sdpack.serve.webui_about import EMPTY_ANSWERS, REFRESHED

from tests.sdpack.serve.fakes import FakeWorker, serving

OPERATIONS = (
    ("POST", "/v1/images/generations"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/v1/images/{job}/{number}"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs/{name}"),
    ("DELETE", "/v1/jobs/{name}"),
    ("POST", "/sdapi/v1/txt2img"),
    ("GET", "/sdapi/v1/sd-models"),
    ("GET", "/sdapi/v1/samplers"),
    ("GET", "/sdapi/v1/options"),
    ("POST", "/sdapi/v1/options"),
    ("GET", "/sdapi/v1/progress"),
    ("POST", "/sdapi/v1/interrupt"),
    ("POST", "/sdapi/v1/png-info"),
    ("GET", "/sdapi/v1/schedulers"),
    ("GET", "/sdapi/v1/memory"),
    ("GET", "/sdapi/v1/cmd-flags"),
    *(("GET", f"/sdapi/v1{path}") for path in EMPTY_ANSWERS),
    *(("POST", f"/sdapi/v1/refresh-{what}") for what in REFRESHED),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/capabilities"),
)
EXAMPLES = int(os.environ.get("SDPACK_FUZZ_EXAMPLES", "40"))  # requests of each operation
DRAWING = ("/v1/images/generations", "/v1/jobs", "/sdapi/v1/txt2img")
PARTLY_TOLD = ("/txt2img", "/sdapi/v1/options", "/png-info")
MALFORMED, CLIENTS = 10_000, 16
ROOMY = Settings(Limits(wait_s=0, queue=10_000, keep_s=1.0, keep_bytes=2**40))


def test_every_operation_is_listed() -> None:
    with serving(FakeWorker()) as (url, _, _):
        paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, of in paths.items() for method in of}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described_and_none_is_the_servers_fault(method: str, path: str) -> None:
    with serving(FakeWorker()) as (url, _, _):
        while httpx.get(f"{url}/readyz").status_code != 200:
            pass
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operation = schema[path][method]

        @given(operation.as_strategy())
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        def test(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500
            # More than a schema can say: that width and height go together, or a quality and a
            # lossy format; what settings are, and whether base64 is a picture.
            together = path.endswith(PARTLY_TOLD) or b'"output_compression"' in answer.content
            excused = [positive_data_acceptance] if together else []
            case.validate_response(answer, excluded_checks=excused)

        test()


@pytest.mark.parametrize("path", DRAWING)
def test_null_in_any_optional_field_is_answered_as_if_it_were_absent(path: str) -> None:
    with serving(FakeWorker(), ROOMY) as (url, _, _), httpx.Client(base_url=url) as asking:
        while asking.get("/readyz").status_code != 200:
            pass
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operation = schema[path]["POST"]
        optional = optional_fields(asking.get("/openapi.json").json(), path)
        assert {"seed", "steps", "negative_prompt"} <= optional

        @given(operation.as_strategy(), st.sets(st.sampled_from(sorted(optional))))
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        def test(case: Any, nulls: set[str]) -> None:
            given = {name: value for name, value in case.body.items() if name not in nulls}
            absent = asking.post(path, json=given)
            null = asking.post(path, json={**given, **dict.fromkeys(nulls)})
            every = asking.post(path, json={**dict.fromkeys(optional), **given})
            assert absent.status_code == null.status_code == every.status_code
            assert absent.status_code < 500

        test()


def optional_fields(document: dict[str, Any], path: str) -> set[str]:
    """Names of what a request to a path may leave out."""
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    name = content["schema"]["$ref"].rpartition("/")[2]
    request = document["components"]["schemas"][name]
    return set(request["properties"]) - set(request.get("required", ()))


def test_malformed_requests_are_refused_or_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes at random in the place of a request, or of some of one."""
    body = b'{"prompt": "a cat", "n": 1, "seed": 4}'
    whole = (
        b"POST /v1/images/generations HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
        b"application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
    ) % (len(body), body)
    limits = Settings(Limits(read_s=0.02, wait_s=0))
    monkeypatch.setattr(Connection, "head_s", 0.02)
    with serving(FakeWorker(), limits) as (url, _, service), ThreadPoolExecutor(CLIENTS) as pool:
        while httpx.get(f"{url}/readyz").status_code != 200:
            pass
        where = ("127.0.0.1", int(url.rpartition(":")[2]))

        def ask(number: int) -> str:
            with socket.create_connection(where, timeout=20) as raw:
                raw.sendall(spoiled(whole, random.Random(number)))
                try:
                    return raw.recv(100)[9:12].decode() or "dropped"
                except ConnectionResetError:
                    return "dropped"

        seen = Counter(pool.map(ask, range(MALFORMED)))
        assert not [status for status in seen if status.startswith("5")], seen
        assert seen["400"] > MALFORMED / 10
        assert seen["200"] > MALFORMED / 100
        assert seen["dropped"] < MALFORMED / 2
        answer = httpx.post(f"{url}/v1/images/generations", json={"prompt": "still here"})
        assert answer.status_code == 200
        assert service.scheduler.depth == 0


def spoiled(whole: bytes, chance: random.Random) -> bytes:
    """A request with some of its bytes changed, and now and then cut off."""
    sent = bytearray(whole)
    for _ in range(chance.choice((1, 3, 30))):
        sent[chance.randrange(len(sent))] = chance.randrange(256)
    if chance.random() < 0.3:
        del sent[chance.randrange(len(sent)) :]
    return bytes(sent)
