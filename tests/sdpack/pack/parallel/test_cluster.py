"""What a worker checks before it begins, on machines that are folders here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sdpack.documents.catalog_files import LocatedCatalog, default_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.domain.precision import Precision
from sdpack.errors import StoreError, WorkerError
from sdpack.pack.mixed.sensitivity import KIND as SENSITIVITY
from sdpack.pack.parallel import cluster
from sdpack.pack.parallel.cluster import OpenOnCluster, SendingRows, TaskWithRows, release
from sdpack.pack.parallel.tasks import ExportPart
from sdpack.pack.planning.mix import Variant
from sdpack.pack.request import BuildRequest
from sdpack.store.ledger import Ledger
from sdpack.workers.jobs import JobResult, WorkerJob

VARIANT = Variant(Role.DECODER, "kl", Precision.FP16)


@pytest.fixture
def opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenOnCluster:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "worker"))
    monkeypatch.delenv("SDPACK_STORE", raising=False)
    cache = tmp_path / "driver"
    cache.mkdir()
    (cache / "token").touch()
    request = BuildRequest(find_profile("4gb-gpu"), default_catalog(), tmp_path / "bundle")
    return OpenOnCluster(request, release(), None, cache, "token")


def test_a_worker_uses_the_cache_of_the_driver_if_it_shares_it(
    opening: OpenOnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _exporting(monkeypatch)
    opening()(TaskWithRows(ExportPart(VARIANT), ()), lambda _: None)
    assert made == [opening.cache / "store"]


def test_a_worker_keeps_a_cache_of_its_own_in_front_of_a_shared_store(
    opening: OpenOnCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _exporting(monkeypatch)
    shared = replace(opening, store=f"file://{tmp_path}/shared", token="none")
    shared()(TaskWithRows(ExportPart(VARIANT), ()), lambda _: None)
    assert made == [tmp_path / "worker" / "store"]


def _exporting(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Have builds only note which store they use."""
    made: list[Path] = []

    class Worker:
        def __init__(self, request: BuildRequest, store: Any, ledger: Any) -> None:
            self.store, self.ledger = store, ledger

        def do(self, task: Any, say: Any) -> list[Any]:
            assert task == ExportPart(VARIANT)
            made.append(self.store.folder)
            return []

    monkeypatch.setattr(cluster, "BuildWorker", Worker)
    return made


def test_a_worker_says_what_its_machine_lacks(opening: OpenOnCluster, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"has sdpack .* but the driver has 0\.0\.1 \(3\)"):
        replace(opening, release=("0.0.1", 3))()
    with pytest.raises(WorkerError, match=r"does not share the cache .*; set SDPACK_STORE"):
        replace(opening, token="another")()
    with pytest.raises(StoreError, match="SDPACK_STORE: nothing://x"):
        replace(opening, store="nothing://x")()
    here = opening.request.located
    elsewhere = LocatedCatalog(here.catalog, tmp_path / "elsewhere")
    request = replace(opening.request, located=elsewhere)
    with pytest.raises(WorkerError, match=r"has no .*elsewhere.* put it at the same path"):
        replace(opening, request=request)()


def test_rows_that_say_how_graphs_are_made_are_sent_along(
    opening: OpenOnCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "driver" / "ledger.sqlite"
    ledger = Ledger(path)
    row = ledger.record(SENSITIVITY, {"of": 1}, {"effects": [1, 2]})
    ledger.record("judge similarity", {"of": 1}, {"scores": [0.5]})
    ledger.close()
    sent: list[WorkerJob] = []

    def run(jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        sent.extend(jobs)
        return iter([JobResult(0)])

    pool = SimpleNamespace(run=run, has_gpus=True)
    executor = SendingRows(cast(Any, pool), path)
    assert list(executor.run([WorkerJob("export", "kl", ExportPart(VARIANT))])) == [JobResult(0)]
    (job,) = sent
    assert job.task == TaskWithRows(ExportPart(VARIANT), (row,))

    found: list[Any] = []

    class Worker:
        def __init__(self, request: BuildRequest, store: Any, ledger: Ledger) -> None:
            self.ledger = ledger

        def do(self, task: Any, say: Any) -> list[Any]:
            found.append(self.ledger.find(SENSITIVITY, {"of": 1}))
            return []

    monkeypatch.setattr(cluster, "BuildWorker", Worker)
    opening()(job.task, lambda _: None)
    assert found == [{"effects": [1, 2]}]
