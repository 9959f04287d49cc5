"""A server behind a reverse proxy, as its headers tell and as a browser sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits

from tests.sdpack.serve.browser import needs_a_browser, opened
from tests.sdpack.serve.fakes import FakeWorker, serving

GENERATE = "/v1/images/generations"
BY_URL = {"prompt": "a cat", "response_format": "url", "seed": 9}
SAID = {
    "x-forwarded-prefix": "/sd",
    "x-forwarded-host": "sd.example:8443",
    "x-forwarded-proto": "https",
}


@contextmanager
def client(**settings: Any) -> Iterator[httpx.Client]:
    given = Settings(Limits(wait_s=0), **{"hosts": ["sd.example"], **settings})
    with (
        serving(FakeWorker(), given) as (url, _, _),
        httpx.Client(base_url=url, timeout=20) as asking,
    ):
        while asking.get("/readyz").status_code != 200:
            pass
        yield asking


def origin_of(asking: httpx.Client) -> str:
    return str(asking.base_url).rstrip("/")


def url_of(asking: httpx.Client, headers: dict[str, str], prefix: str = "") -> str:
    """Where the server says a picture is."""
    answer = asking.post(prefix + GENERATE, json=BY_URL, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"][0]["url"])


def test_pictures_are_where_the_proxy_says_clients_ask() -> None:
    with client() as asking:
        url = url_of(asking, SAID)
        assert url.startswith("https://sd.example:8443/sd/v1/images/")
        path = url.removeprefix("https://sd.example:8443/sd")
        assert asking.get(path, headers=SAID).status_code == 200
        started = asking.post("/v1/jobs", json={"prompt": "a"}, headers=SAID)
        assert started.headers["location"] == f"/sd/v1/jobs/{started.json()['id']}"
        servers = asking.get("/openapi.json", headers=SAID).json()["servers"]
        assert servers == [{"url": "/sd"}]
        assert "servers" not in asking.get("/openapi.json").json()


@pytest.mark.parametrize("proxies", [(), ("203.0.113.7",), ("10.0.0.0/8", "::1")])
def test_headers_of_others_than_named_proxies_are_ignored(proxies: tuple[str, ...]) -> None:
    with client(proxies=proxies) as asking:
        assert url_of(asking, SAID).startswith(f"{origin_of(asking)}/v1/images/")
    with client(proxies=("127.0.0.0/8",)) as asking:
        assert url_of(asking, SAID).startswith("https://sd.example:8443/sd/")


@pytest.mark.parametrize("arrives_with", ["", "/sd"])
def test_under_a_root_path_whether_or_not_the_proxy_takes_it_off(arrives_with: str) -> None:
    with client(root_path="/sd") as asking:
        url = url_of(asking, {}, arrives_with)
        assert url.startswith(f"{origin_of(asking)}/sd/v1/images/")
        for path in ("/healthz", "/readyz", "/", "/v1/models", "/openapi.json", "/metrics"):
            assert asking.get(arrives_with + path).status_code == 200
        assert asking.get("/sd").text == asking.get("/").text
        assert asking.get("/sdx/v1/models").status_code == 404


@pytest.mark.parametrize(
    ("prefix", "used"),
    [
        ("/a/b/", "/a/b"),
        ("/a, /b", "/a/b"),
        ("/", ""),
        ("//evil.example", ""),
        ("/../x", ""),
        ("/a b", ""),
        ("https://evil.example", ""),
    ],
)
def test_only_a_plain_path_is_a_prefix(prefix: str, used: str) -> None:
    with client() as asking:
        url = url_of(asking, {"x-forwarded-prefix": prefix})
        assert url.startswith(f"{origin_of(asking)}{used}/v1/images/")


@pytest.mark.parametrize(
    ("host", "used"),
    [("sd.example, inner.example", "sd.example"), ("[::1]:81", "[::1]:81"), ("a/b", None)],
)
def test_only_a_host_is_a_host(host: str, used: str | None) -> None:
    with client() as asking:
        own = f"{asking.base_url.host}:{asking.base_url.port}"
        url = url_of(asking, {"x-forwarded-host": host})
        assert url.startswith(f"http://{used or own}/v1/images/")


def test_the_proxys_header_is_stronger_than_the_root_path() -> None:
    with client(root_path="/own") as asking:
        assert "/sd/v1/images/" in url_of(asking, SAID)


def test_a_page_may_ask_the_host_it_is_from_through_a_proxy() -> None:
    with client() as asking:
        for origin in ("https://sd.example:8443", origin_of(asking)):
            through = asking.post(GENERATE, json=BY_URL, headers={**SAID, "origin": origin})
            assert through.status_code == (200 if "sd.example" in origin else 403)
        usual = {**SAID, "x-forwarded-host": "sd.example:443", "origin": "https://sd.example"}
        assert asking.post(GENERATE, json=BY_URL, headers=usual).status_code == 200
        refused = asking.post(GENERATE, json=BY_URL, headers={"origin": "https://sd.example"})
        assert "X-Forwarded-Host" in refused.json()["error"]["message"]


def test_a_name_of_another_page_is_not_let_in_by_a_header() -> None:
    """A page at rebound.example, a name that points here, can send any header to its own host."""
    with client() as asking:
        for headers in (
            {"host": "rebound.example", "x-forwarded-host": "localhost"},
            {"host": "localhost", "x-forwarded-host": "rebound.example"},
        ):
            assert asking.get("/v1/models", headers=headers).status_code == 421
            assert asking.get("/healthz", headers=headers).status_code == 200
        assert asking.get("/v1/models", headers={"x-forwarded-host": "localhost"}).is_success


def test_a_key_is_asked_for_under_a_prefix_too() -> None:
    with client(keys=["0123456789abcdef"], root_path="/sd") as asking:
        for prefix in ("", "/sd"):
            assert asking.get(f"{prefix}/v1/models").status_code == 401
            assert asking.get(f"{prefix}/readyz").status_code == 200
            assert asking.get(f"{prefix}/").status_code == 200


@contextmanager
def proxied(url: str, prefix: str) -> Iterator[str]:
    """Where a proxy is that takes a prefix off and says nothing of it."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def pass_on(self) -> None:
            if not self.path.startswith(prefix):
                self.send_error(404)
                return
            length = int(self.headers.get("content-length", 0))
            answer = httpx.request(
                self.command,
                url + (self.path.removeprefix(prefix) or "/"),
                headers=dict(self.headers),
                content=self.rfile.read(length),
                timeout=20,
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{prefix}"
        finally:
            server.shutdown()
            thread.join()


@needs_a_browser
@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_draws_under_a_prefix_it_was_not_told_of(slash: str) -> None:
    with (
        serving(FakeWorker()) as (url, _, _),
        proxied(url, "/a/sd") as outside,
        opened(outside + slash) as tab,
    ):
        tab.wait_for_selector("#draw:not([disabled])")
        tab.fill("#prompt", "x" * 400)
        tab.click("#draw")
        tab.wait_for_selector("#gallery img")
        assert "truncated: " in (tab.text_content("#said") or "")


def test_a_large_picture_is_read_under_a_prefix_too() -> None:
    """The path that takes larger requests is known without the prefix."""
    with client(root_path="/sd") as asking:
        answer = asking.post("/sd/sdapi/v1/png-info", json={"image": "A" * 2**19})
        assert answer.status_code == 400, answer.text  # it is no picture, and not too large
