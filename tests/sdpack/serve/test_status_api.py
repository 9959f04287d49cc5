from __future__ import annotations

import httpx
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits

from tests.sdpack.serve.clients import (
    GENERATE,
    client,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, serving


def test_what_it_can_do(asking: httpx.Client) -> None:
    can = asking.get("/capabilities").json()
    assert can["sizes"] == ["64x64", "96x64"]
    assert can["steps"] == {"usual": 4, "choices": [2, 4, 8]}
    assert can["batch"] == 4
    assert can["mix"]["denoiser"]["precision"] == "w4"
    assert can["evidence"]["quality"]["value"] == 0.5


def test_an_engine_that_hangs_is_told_to_whoever_watches(worker: FakeWorker) -> None:
    worker.go.clear()
    settings = Settings(Limits(timeout_s=0.1, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 504
        wait_until(lambda: asking.get("/healthz").status_code == 503)
        worker.go.set()
        wait_until(lambda: asking.get("/healthz").status_code == 200)
