from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sdpack.domain.precision import Runtime
from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits
from sdpack.serve.service import OWN_BYTES, tightness

from tests.sdpack.serve.clients import (
    GENERATE,
    client,
    error,
    finished_job,
    wait_until,
)
from tests.sdpack.serve.fakes import FakeWorker, manifest, serving


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


def test_what_nobody_fetched_in_time_makes_room(worker: FakeWorker) -> None:
    settings = Settings(Limits(keep_bytes=100, keep_s=0.3, wait_s=0))
    with serving(worker, settings) as (url, _, service), client(url) as asking:
        asking.post("/v1/jobs", json={"prompt": "a"})
        wait_until(lambda: service.scheduler.depth == 0)
        assert asking.post("/v1/jobs", json={"prompt": "a"}).status_code == 429
        wait_until(lambda: asking.post("/v1/jobs", json={"prompt": "a"}).status_code == 202)


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
