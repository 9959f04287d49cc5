from __future__ import annotations

from sdpack.serve.app import Settings
from sdpack.serve.limits import Limits

from tests.sdpack.serve.clients import (
    GENERATE,
    client,
    finished_job,
)
from tests.sdpack.serve.fakes import FakeWorker, serving


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
