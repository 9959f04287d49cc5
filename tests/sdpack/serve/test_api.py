from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from sdpack.domain.precision import Runtime
from sdpack.errors import EngineError
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.security import Dressed, KeyFileError, host_name, read_keys
from sdpack.serve.server import Server
from sdpack.serve.service import OWN_BYTES, Service, tightness
from sdpack.serve.work import ImageRequest, Job

from tests.sdpack.serve.fakes import FakeWorker, manifest, serving

GENERATE = "/v1/images/generations"
KEY = "0123456789abcdef0123"


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


@contextmanager
def client(url: str) -> Iterator[httpx.Client]:
    """Of a server that is ready."""
    with httpx.Client(base_url=url, timeout=20) as made:
        wait_until(lambda: made.get("/readyz").status_code == 200)
        yield made


def wait_until(true: Any) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


def error(answer: httpx.Response) -> dict[str, Any]:
    """What an error says, in OpenAI's shape."""
    found = answer.json()
    assert set(found) == {"error"}
    assert set(found["error"]) == {"message", "type", "param", "code"}
    return dict(found["error"])


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_pictures_as_openai_has_them(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "n": 2, "size": "96x64", "seed": 5})
    assert answer.status_code == 200
    found = answer.json()
    assert found["size"] == "96x64"
    assert [one["seed"] for one in found["data"]] == [5, 6]
    pictures = [decoded(one["b64_json"]) for one in found["data"]]
    assert [picture.size for picture in pictures] == [(96, 64)] * 2
    assert [picture.getpixel((0, 9)) for picture in pictures] == [(5, 5, 5), (6, 6, 6)]
    assert json.loads(pictures[1].info["sdpack"])["seed"] == 6


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_each_format(asking: httpx.Client, name: str, kind: str) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "output_format": name})
    (one,) = answer.json()["data"]
    assert decoded(one["b64_json"]).format == kind


def test_pictures_can_be_fetched_by_their_address(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "response_format": "url", "seed": 9})
    (one,) = answer.json()["data"]
    assert one["b64_json"] is None
    fetched = asking.get(one["url"])
    assert fetched.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(fetched.content)).getpixel((0, 9)) == (9, 9, 9)
    assert asking.get(one["url"][:-1] + "1").status_code == 404
    assert error(asking.get("/v1/images/none/0"))["code"] == "not_found"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 5000}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"negative_prompt": "x" * 5000}, "negative_prompt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"size": "100x100"}, "size"),
        ({"size": "a lot"}, "size"),
        ({"size": "99999999999x8"}, "size"),
        ({"steps": 3}, "steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63 - 1}, "seed"),
        ({"guidance_scale": -1}, "guidance_scale"),
        ({"guidance_scale": 1e9}, "guidance_scale"),
        ({"output_format": "bmp"}, "output_format"),
        ({"response_format": "carrier pigeon"}, "response_format"),
        ({"promt": "a typo"}, "promt"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    asking: httpx.Client, worker: FakeWorker, changes: dict[str, Any], param: str
) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", **changes})
    assert answer.status_code == 400
    said = error(answer)
    assert said["param"] == param
    assert said["type"] == "invalid_request_error"
    assert said["message"].startswith(f"{param}: ")
    assert len(said["message"]) < 300
    assert worker.batches == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"prompt": "\\ud800"}', b'{"prompt": "a", "n": NaN}', b"\xff"],
)
def test_a_body_that_is_no_request_is_refused(asking: httpx.Client, body: bytes) -> None:
    answer = asking.post(GENERATE, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error(answer)["message"]


@pytest.mark.parametrize("path", [GENERATE, "/v1/jobs", "/sdapi/v1/txt2img", "/sdapi/v1/options"])
@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b'{"prompt": "a"}', None, "send Content-Type: application/json"),
        (
            b'{"prompt": "a"}',
            "application/x-www-form-urlencoded",
            "send Content-Type: application/json, not 'application/x-www-form-urlencoded'",
        ),
        (b"", None, "the request has no body"),
        (b"", "application/json", "the request has no body"),
        (b"[]", "application/json", "must be a JSON object"),
        (b"3", "application/vnd.api+json; charset=utf-8", "must be a JSON object"),
    ],
)
def test_a_body_that_is_no_json_object_is_told_what_to_send(
    asking: httpx.Client, path: str, body: bytes, kind: str | None, said: str
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = asking.post(path, content=body, headers=headers)
    assert answer.status_code == 400
    assert said in error(answer)["message"]
    assert "dictionary" not in answer.text


def test_another_model_is_not_here(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "a cat", "model": "dall-e-3"})
    assert answer.status_code == 404
    assert error(answer)["code"] == "model_not_found"
    assert asking.get("/v1/models/dall-e-3").status_code == 404
    assert asking.get("/v1/models/fake").json()["id"] == "fake"
    assert [one["id"] for one in asking.get("/v1/models").json()["data"]] == ["fake"]


def test_what_is_broken_is_a_500_in_words(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "broken"})
    assert answer.status_code == 500
    assert "flat colour" in error(answer)["message"]
    failed = asking.post(GENERATE, json={"prompt": "fail"})
    assert failed.status_code == 500
    assert "another's making" not in failed.text
    assert asking.post(GENERATE, json={"prompt": "a cat"}).status_code == 200


def test_a_job_is_followed_step_by_step(asking: httpx.Client, worker: FakeWorker) -> None:
    worker.go.clear()
    started = asking.post("/v1/jobs", json={"prompt": "a cat", "n": 2, "seed": 1})
    assert started.status_code == 202
    path = started.headers["location"]
    assert worker.begun.wait(10)
    job = asking.get(path).json()
    assert (job["status"], job["data"]) == ("running", [])
    with asking.stream("GET", path, headers={"accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        worker.go.set()
        lines = list(stream.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event")]
    seen = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data")]
    assert names == ["progress"] * (len(names) - 1) + ["done"]
    assert [one["progress"] for one in seen] == sorted(one["progress"] for one in seen)
    assert seen[-1]["progress"] == 1.0
    assert [asking.get(one["url"]).status_code for one in seen[-1]["data"]] == [200, 200]


def test_a_cancelled_job_is_not_drawn_on(asking: httpx.Client, worker: FakeWorker) -> None:
    worker.go.clear()
    path = asking.post("/v1/jobs", json={"prompt": "a cat"}).headers["location"]
    assert worker.begun.wait(10)
    assert asking.delete(path).json()["status"] == "cancelled"
    worker.go.set()
    assert asking.post(GENERATE, json={"prompt": "next"}).status_code == 200
    assert worker.steps == [0, 4]
    assert asking.delete(path).json()["status"] == "cancelled"
    assert asking.delete("/v1/jobs/none").status_code == 404


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


def test_a_full_queue_is_a_429(worker: FakeWorker) -> None:
    worker.go.clear()
    with (
        serving(worker, Settings(Limits(queue=3, wait_s=0))) as (url, _, service),
        client(url) as asking,
        ThreadPoolExecutor(3) as pool,
    ):
        waiting = [pool.submit(asking.post, GENERATE, json={"prompt": "a"}) for _ in range(3)]
        wait_until(lambda: service.scheduler.depth == 3)
        answer = asking.post(GENERATE, json={"prompt": "a cat"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert error(answer)["code"] == "queue_full"
        worker.go.set()
        assert [one.result().status_code for one in waiting] == [200] * 3


def test_too_slow_is_a_504(worker: FakeWorker) -> None:
    worker.go.clear()
    settings = Settings(Limits(timeout_s=0.1, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        answer = asking.post(GENERATE, json={"prompt": "a cat"})
        assert answer.status_code == 504
        assert error(answer)["code"] == "timeout"


def test_the_web_ui_of_automatic1111_can_draw(asking: httpx.Client, worker: FakeWorker) -> None:
    wanted = {"prompt": "a cat", "seed": 4, "steps": 8, "cfg_scale": 2, "n_iter": 2, "width": 96}
    more = {"sampler_name": "Euler a", "alwayson_scripts": {}, "height": 64}
    found = asking.post("/sdapi/v1/txt2img", json={**wanted, **more}).json()
    assert [decoded(image).size for image in found["images"]] == [(96, 64)] * 2
    info = json.loads(found["info"])
    assert info["all_seeds"] == [4, 5]
    assert (info["steps"], info["cfg_scale"]) == (8, 2)
    assert worker.steps[-1] == 8
    (model,) = asking.get("/sdapi/v1/sd-models").json()
    assert model["model_name"] == "fake"
    assert asking.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == model["title"]
    assert asking.post("/sdapi/v1/txt2img", json={"steps": 3}).status_code == 400


def test_the_web_ui_of_automatic1111_sees_progress_and_interrupts(
    asking: httpx.Client, worker: FakeWorker
) -> None:
    idle = asking.get("/sdapi/v1/progress").json()
    assert (idle["progress"], idle["state"]["job_count"]) == (0.0, 0)
    worker.go.clear()
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(asking.post, "/sdapi/v1/txt2img", json={"prompt": "a cat"})
        assert worker.begun.wait(10)
        assert asking.get("/sdapi/v1/progress").json()["state"]["job_count"] == 1
        assert asking.post("/sdapi/v1/interrupt").json() == {}
        worker.go.set()
        found = drawing.result().json()
        assert found["images"] == json.loads(found["info"])["all_seeds"] == []


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


def test_what_is_counted(asking: httpx.Client) -> None:
    asking.post(GENERATE, json={"prompt": "a cat", "n": 2})
    asking.post(GENERATE, json={"prompt": "broken"})
    asking.post(GENERATE, json={})
    text = asking.get("/metrics").text
    for line in (
        "sdpack_images_total 2.0",
        'sdpack_failures_total{reason="BrokenPictureError"} 1.0',
        "sdpack_queue_depth 0.0",
        'sdpack_batch_size_bucket{le="2.0"} 2.0',
        'sdpack_responses_total{status="400"} 1.0',
        "sdpack_memory_budget_bytes 100.0",
        "sdpack_ready 1.0",
    ):
        assert line in text
    memory = next(line for line in text.splitlines() if line.startswith("sdpack_memory_bytes{"))
    assert float(memory.split()[1]) > 2**20


def test_what_it_can_do(asking: httpx.Client) -> None:
    can = asking.get("/capabilities").json()
    assert can["sizes"] == ["64x64", "96x64"]
    assert can["steps"] == {"usual": 4, "choices": [2, 4, 8]}
    assert can["batch"] == 4
    assert can["mix"]["denoiser"]["precision"] == "w4"
    assert can["evidence"]["quality"]["value"] == 0.5


def test_a_plan_without_room_for_a_server_is_told() -> None:
    def said(predicted: int, runtime: Runtime, batch: int | None = None) -> str | None:
        made = manifest()
        memory = made.memory.model_copy(
            update={"predicted_bytes": predicted, "budget_bytes": 2**30}
        )
        profile = made.profile.model_copy(update={"runtime": Runtime.ONNXRUNTIME_CPU})
        built = made.model_copy(update={"memory": memory, "profile": profile})
        return tightness(built, runtime, batch)

    cpu, tight = Runtime.ONNXRUNTIME_CPU, 2**30 - OWN_BYTES + 1
    assert said(tight - 1, cpu) is None
    words = said(tight, cpu)
    assert words is not None
    assert "960.0 MiB of 1.00 GiB" in words
    assert "64.0 MiB more" in words
    assert said(tight, cpu, 3) is None
    assert said(tight, Runtime.ONNXRUNTIME_CUDA) is None


def test_what_nobody_fetched_in_time_makes_room(worker: FakeWorker) -> None:
    settings = Settings(Limits(keep_bytes=100, keep_s=0.3, wait_s=0))
    with serving(worker, settings) as (url, _, service), client(url) as asking:
        asking.post("/v1/jobs", json={"prompt": "a"})
        wait_until(lambda: service.scheduler.depth == 0)
        assert asking.post("/v1/jobs", json={"prompt": "a"}).status_code == 429
        wait_until(lambda: asking.post("/v1/jobs", json={"prompt": "a"}).status_code == 202)


def test_what_failed_holds_on_to_nothing(
    served: tuple[httpx.Client, Server, Service],
) -> None:
    asking, _, service = served
    path = asking.post("/v1/jobs", json={"prompt": "broken"}).headers["location"]
    wait_until(lambda: asking.get(path).json()["status"] == "failed")
    found = service.jobs.find(path.rpartition("/")[2])
    assert found is not None
    assert found.error is not None
    assert found.error.__traceback__ is None


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
    assert [picture.encoded for picture in jobs[0].pictures] == [None, None]


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


def test_an_engine_that_hangs_is_told_to_whoever_watches(worker: FakeWorker) -> None:
    worker.go.clear()
    settings = Settings(Limits(timeout_s=0.1, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 504
        wait_until(lambda: asking.get("/healthz").status_code == 503)
        worker.go.set()
        wait_until(lambda: asking.get("/healthz").status_code == 200)


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


def test_finished_jobs_are_forgotten_where_there_are_too_many(worker: FakeWorker) -> None:
    settings = Settings(Limits(keep_jobs=2, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        paths = [finished_job(asking) for _ in range(4)]
        assert [asking.get(path).status_code for path in paths] == [200] * 4, "not fetched yet"
        for path in paths:
            (one,) = asking.get(path).json()["data"]
            assert asking.get(one["url"]).status_code == 200
        assert [asking.get(path).status_code for path in paths] == [404, 404, 200, 200]


def test_what_was_not_fetched_is_kept_whatever_others_do(worker: FakeWorker) -> None:
    settings = Settings(Limits(keep_jobs=2, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        first = finished_job(asking)
        for _ in range(5):
            path = asking.post("/v1/jobs", json={"prompt": "a"}).headers["location"]
            asking.delete(path)
            asking.post(GENERATE, json={"prompt": "a"})
        (one,) = asking.get(first).json()["data"]
        assert asking.get(one["url"]).status_code == 200


def test_more_than_is_kept_is_not_begun(worker: FakeWorker) -> None:
    settings = Settings(Limits(keep_bytes=100, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        first = finished_job(asking)
        answer = asking.post("/v1/jobs", json={"prompt": "a"})
        assert answer.status_code == 429
        assert "waiting to be fetched" in error(answer)["message"]
        assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 200
        (one,) = asking.get(first).json()["data"]
        assert asking.get(one["url"]).status_code == 200
        assert asking.post("/v1/jobs", json={"prompt": "a"}).status_code == 202


def test_what_was_drawn_of_a_cancelled_job_is_let_go(
    served: tuple[httpx.Client, Server, Service],
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asking, _, service = served
    draw = worker.draw

    def draw_a_batch_and_wait(*given: Any) -> Any:
        if worker.batches:
            worker.go.clear()
        return draw(*given)

    monkeypatch.setattr(worker, "draw", draw_a_batch_and_wait)
    path = asking.post("/v1/jobs", json={"prompt": "a", "n": 8}).headers["location"]
    wait_until(lambda: len(worker.batches) == 2 and asking.get(path).json()["made"] == 4)
    seen = asking.delete(path).json()
    assert (seen["status"], seen["made"], seen["data"]) == ("cancelled", 4, [])
    assert service.jobs.unfetched_bytes == 0
    answer = asking.get(path.replace("jobs", "images") + "/0")
    assert answer.status_code == 404
    assert "cancelled" in error(answer)["message"]


def finished_job(asking: httpx.Client) -> str:
    """Where a job is that was drawn."""
    path = asking.post("/v1/jobs", json={"prompt": "a"}).headers["location"]
    wait_until(lambda: asking.get(path).json()["status"] == "done")
    return path


def test_a_file_that_cannot_be_written_fails_its_own_job(
    asking: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> bytes:
        raise OSError("no such codec")

    with monkeypatch.context() as patch:
        patch.setattr("sdpack.serve.scheduler.encode", encode)
        answer = asking.post(GENERATE, json={"prompt": "a"})
    assert answer.status_code == 500
    assert "codec" not in answer.text
    assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 200


def test_numbers_beyond_any_measure_are_refused(asking: httpx.Client) -> None:
    huge = "1" + "0" * 4000
    for path, body in (
        (GENERATE, f'{{"prompt": "a", "n": {huge}}}'),
        ("/sdapi/v1/txt2img", f'{{"batch_size": {huge}, "n_iter": {huge}}}'),
        ("/sdapi/v1/txt2img", '{"batch_size": 9999, "n_iter": 9999}'),
    ):
        answer = asking.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert len(answer.text) < 500


def test_what_clients_leave_open_is_the_usual(asking: httpx.Client) -> None:
    asked = {"prompt": "a", "n": None, "size": None, "stream": False, "quality": "hd"}
    assert len(asking.post(GENERATE, json=asked).json()["data"]) == 1


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
