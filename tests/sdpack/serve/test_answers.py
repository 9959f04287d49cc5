from __future__ import annotations

from typing import Any

import httpx
import pytest
from sdpack.errors import EngineError, PromptError
from sdpack.serve.answers import GONE, GoneError, NotFoundError, NotReadyError, answer, error_data
from sdpack.serve.scheduler import BusyError, EndingError
from sdpack.serve.service import BadRequestError
from sdpack.serve.work import TimedOutError

from tests.sdpack.serve.clients import (
    GENERATE,
    error,
)
from tests.sdpack.serve.fakes import FakeWorker


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


def test_what_is_broken_is_a_500_in_words(asking: httpx.Client) -> None:
    answer = asking.post(GENERATE, json={"prompt": "broken"})
    assert answer.status_code == 500
    assert "flat colour" in error(answer)["message"]
    failed = asking.post(GENERATE, json={"prompt": "fail"})
    assert failed.status_code == 500
    assert "another's making" not in failed.text
    assert asking.post(GENERATE, json={"prompt": "a cat"}).status_code == 200


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


@pytest.mark.parametrize(
    ("raised", "status", "kind", "code"),
    [
        (BadRequestError("n", "is 0"), 400, "invalid_request_error", None),
        (PromptError("a prompt"), 400, "invalid_request_error", None),
        (NotFoundError("no job"), 404, "invalid_request_error", "not_found"),
        (BusyError("full", 7), 429, "rate_limit_error", "queue_full"),
        (NotReadyError("loading"), 503, "server_error", "unavailable"),
        (EndingError(), 503, "server_error", "unavailable"),
        (TimedOutError("slow"), 504, "server_error", "timeout"),
        (GoneError("left"), GONE, "server_error", "gone"),
        (EngineError("lost"), 500, "server_error", "failed"),
    ],
)
def test_each_error_class_has_its_status_and_keeps_its_message(
    raised: Exception, status: int, kind: str, code: str | None
) -> None:
    found, data = error_data(raised)
    assert (found, data.type, data.code, data.message) == (status, kind, code, str(raised))
    waits = {429: "7", 503: "1"}.get(status)
    assert answer(raised).headers.get("retry-after") == waits


def test_the_message_of_an_unexpected_error_is_not_sent_to_clients() -> None:
    status, data = error_data(RuntimeError("a secret"))
    assert (status, data.message) == (500, "the server failed; see its log")
