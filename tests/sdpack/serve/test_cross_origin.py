"""Pages of other origins: what a browser asks and is answered, and a real browser."""

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

from tests.sdpack.serve.browser import needs_a_browser, new_tab
from tests.sdpack.serve.fakes import FakeWorker, serving

GENERATE = "/v1/images/generations"
OURS, THEIRS = "https://ours.example", "https://theirs.example"
KEY = "0123456789abcdef0123"
OPENAI_JS = (  # of version 6, as a browser lists them
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout,openai-organization,openai-project"
)
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": OPENAI_JS,
}
ALLOWED = "access-control-allow-origin"


@contextmanager
def client(**settings: Any) -> Iterator[httpx.Client]:
    with (
        serving(FakeWorker(), Settings(Limits(wait_s=0), **settings)) as (url, _, _),
        httpx.Client(base_url=url, timeout=20) as asking,
    ):
        while asking.get("/readyz").status_code != 200:
            pass
        yield asking


@pytest.mark.parametrize("keys", [(), (KEY,)])
@pytest.mark.parametrize("path", [GENERATE, "/v1/jobs", "/v1/jobs/any", "/sdapi/v1/txt2img"])
def test_a_preflight_with_the_headers_of_openais_client_is_answered(
    keys: tuple[str, ...], path: str
) -> None:
    with client(origins=(OURS,), keys=keys) as asking:
        answer = asking.options(path, headers={"origin": OURS, **PREFLIGHT})
        assert answer.status_code == 200
        assert answer.headers[ALLOWED] == OURS
        assert set(OPENAI_JS.split(",")) <= {
            name.strip() for name in answer.headers["access-control-allow-headers"].split(",")
        }
        near = {"access-control-request-private-network": "true"}
        answer = asking.options(path, headers={"origin": OURS, **PREFLIGHT, **near})
        assert answer.headers["access-control-allow-private-network"] == "true"
        refused = asking.options(path, headers={"origin": THEIRS, **PREFLIGHT})
        assert refused.status_code == 400
        assert ALLOWED not in refused.headers


def test_a_page_may_read_why_it_was_refused_and_when_to_come_back() -> None:
    with client(origins=(OURS,), keys=(KEY,)) as asking:
        answer = asking.post(GENERATE, json={"prompt": "a"}, headers={"origin": OURS})
        assert (answer.status_code, answer.headers[ALLOWED]) == (401, OURS)
        assert answer.headers["access-control-expose-headers"] == "location, retry-after"
    with client(origins=(OURS,)) as asking:
        host = {"origin": OURS, "host": "other.example"}
        answer = asking.post(GENERATE, json={"prompt": "a"}, headers=host)
        assert (answer.status_code, answer.headers[ALLOWED]) == (421, OURS)
        answer = asking.post(GENERATE, json={"prompt": "a"}, headers={"origin": THEIRS})
        assert answer.status_code == 403
        assert ALLOWED not in answer.headers


@pytest.mark.parametrize(("origins", "policy"), [((OURS,), "cross-origin"), ((), "same-origin")])
def test_pictures_can_be_shown_elsewhere_only_where_another_origin_is_allowed(
    origins: tuple[str, ...], policy: str
) -> None:
    with client(origins=origins) as asking:
        asked = {"prompt": "a", "response_format": "url"}
        url = asking.post(GENERATE, json=asked).json()["data"][0]["url"]
        name = "cross-origin-resource-policy"
        assert asking.get(url).headers[name] == policy
        for path in ("/", "/v1/models", "/capabilities", "/v1/images/none/0"):
            assert asking.get(path).headers[name] == "same-origin"


def test_a_pictures_url_needs_no_key_where_other_pages_may_show_it_and_all_else_does() -> None:
    bearer = {"authorization": f"Bearer {KEY}"}
    asked = {"prompt": "a", "response_format": "url"}
    with client(keys=(KEY,)) as asking:
        url = asking.post(GENERATE, json=asked, headers=bearer).json()["data"][0]["url"]
        assert asking.get(url).status_code == 401
    with client(keys=(KEY,), origins=(OURS,)) as asking:
        url = asking.post(GENERATE, json=asked, headers=bearer).json()["data"][0]["url"]
        assert asking.get(url).status_code == 200
        assert asking.get("/v1/images/none/0").status_code == 404
        assert asking.delete(url).status_code == 401
        assert asking.post(url).status_code == 401
        assert asking.get(f"{url}/more").status_code == 401
        job = url.replace("/v1/images/", "/v1/jobs/").rpartition("/")[0]
        assert asking.get(job).status_code == 401
        assert asking.get(job, headers=bearer).status_code == 200


PAGE = """<!doctype html><title>a page of another origin</title><script>
async function draw(server, key) {
  const answer = await fetch(server + "/v1/images/generations", {
    method: "POST",
    headers: {
      "content-type": "application/json", authorization: "Bearer " + key,
      "x-stainless-lang": "js", "x-stainless-retry-count": "0",
    },
    body: JSON.stringify({prompt: "a cat", response_format: "url"}),
  });
  return (await answer.json()).data[0].url;
}
async function show(url) {
  const image = new Image();
  image.src = url;
  try { await image.decode(); } catch { return 0; }
  document.body.append(image);
  return image.naturalWidth;
}
</script>"""


@contextmanager
def other_origin() -> Iterator[str]:
    """Where a page is that has another origin than any server here, and another site."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@needs_a_browser
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_a_page_of_an_allowed_origin_draws_and_shows_a_picture(keys: tuple[str, ...]) -> None:
    with (
        other_origin() as origin,
        client(origins=(origin,), keys=keys) as asking,
        new_tab() as tab,
    ):
        tab.goto(origin)
        server = str(asking.base_url).rstrip("/")
        url = tab.evaluate("([server, key]) => draw(server, key)", [server, KEY])
        assert tab.evaluate("url => show(url)", url) == 64


@needs_a_browser
def test_a_page_of_another_origin_neither_draws_nor_shows() -> None:
    with other_origin() as origin, client() as asking, new_tab() as tab:
        tab.goto(origin)
        server = str(asking.base_url).rstrip("/")
        tried = "([server, key]) => draw(server, key).catch(error => error.name)"
        assert tab.evaluate(tried, [server, KEY]) == "TypeError"
        asked = {"prompt": "a", "response_format": "url"}
        url = asking.post(GENERATE, json=asked).json()["data"][0]["url"]
        assert tab.evaluate("url => show(url)", url) == 0
