"""Clients of a server over a worker that draws at the test's command."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from PIL import Image

GENERATE = "/v1/images/generations"
KEY = "0123456789abcdef0123"


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


def finished_job(asking: httpx.Client) -> str:
    """Where a job is that was drawn."""
    path = asking.post("/v1/jobs", json={"prompt": "a"}).headers["location"]
    wait_until(lambda: asking.get(path).json()["status"] == "done")
    return path
