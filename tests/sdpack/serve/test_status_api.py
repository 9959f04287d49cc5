from __future__ import annotations

import httpx
from sdpack.domain.placement import Role
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits

from tests.sdpack.serve.clients import (
    GENERATE,
    client,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, manifest, serving


def test_what_it_can_do(asking: httpx.Client) -> None:
    can = asking.get("/capabilities").json()
    assert can["sizes"] == ["64x64", "96x64"]
    assert can["steps"] == {"usual": 4, "choices": [2, 4, 8]}
    assert can["batch"] == 4
    assert can["mix"]["denoiser"]["precision"] == "w4"
    assert can["evidence"]["quality"]["value"] == 0.5


def test_what_its_licences_say() -> None:
    worker = FakeWorker()
    whole = {role: p.model_dump() | {"loras": []} for role, p in worker.manifest.parts.items()}
    whole[Role.DENOISER] |= {"candidate": "dev", "licence": "FLUX.1 [dev] Non-Commercial"}
    worker.manifest = manifest(parts=whole)
    with serving(worker) as (url, _, _), client(url) as asking:
        can = asking.get("/capabilities").json()
    assert can["mix"]["denoiser"]["licence"] == "FLUX.1 [dev] Non-Commercial"
    assert (can["mix"]["denoiser"]["bridge"], can["mix"]["denoiser"]["loras"]) == (None, [])
    assert can["licences"]["commercial_use"] == "not allowed"
    assert can["licences"]["line"] == (
        "Licences: not for commercial use, because of denoiser dev (FLUX.1 [dev] Non-Commercial)."
    )


def test_an_engine_that_hangs_is_told_to_whoever_watches(worker: FakeWorker) -> None:
    worker.go.clear()
    settings = Settings(Limits(timeout_s=0.1, wait_s=0))
    with serving(worker, settings) as (url, _, _), client(url) as asking:
        assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 504
        wait_until(lambda: asking.get("/healthz").status_code == 503)
        worker.go.set()
        wait_until(lambda: asking.get("/healthz").status_code == 200)
