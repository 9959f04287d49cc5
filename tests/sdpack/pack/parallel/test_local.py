"""How many worker processes a build starts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sdpack.documents.catalog import Mixable
from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.export.checkpoint import MANY
from sdpack.pack.candidates import Candidates
from sdpack.pack.parallel import local
from sdpack.pack.parallel.local import (
    PROCESS_BYTES,
    is_long,
    open_executor,
    worker_bytes,
    worker_count,
)
from sdpack.pack.request import BuildRequest
from sdpack.workers.executor import OneProcess, WorkerOptions
from sdpack.workers.pool import WorkerPool


@pytest.fixture
def candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Candidates:
    monkeypatch.setenv("SDPACK_CACHE", str(tmp_path / "cache"))
    profile = find_profile("4gb-gpu")
    return Candidates(BuildRequest(profile, default_catalog(), tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("cores", "memory_gib", "workers"),
    [(1, 64, 1), (2, 64, 2), (16, 64, 16), (16, 8, 5), (8, 1, 1)],
)
def test_cores_and_memory_limit_the_workers(
    cores: int,
    memory_gib: int,
    workers: int,
    candidates: Candidates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(local, "memory_bytes", lambda: memory_gib * 2**30)
    assert worker_count(candidates) == workers
    monkeypatch.setenv("SDPACK_THREADS", "1")
    assert worker_count(candidates) == 1


@pytest.mark.parametrize(
    ("sizes", "numbers"),
    [
        ([100, 1000, 50], 2000),  # the denoiser is prepared in two copies
        ([700, 800, 300], 1800),  # all parts are held
        ([MANY, 1000, 50], MANY + 1050),  # the weights of a very large part stay in their files
    ],
)
def test_a_worker_holds_a_mix_or_prepares_a_part(sizes: list[int], numbers: int) -> None:
    names = dict(zip((Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER), "abc", strict=True))
    by_name = dict(zip("abc", sizes, strict=True))
    stub: Any = SimpleNamespace(
        catalog=SimpleNamespace(mixable=lambda: [Mixable(names, {})]),
        checkpoint=lambda role, name: SimpleNamespace(parameters=by_name[name], loras=()),
    )
    assert worker_bytes(stub) == PROCESS_BYTES + 4 * numbers


def test_a_short_build_starts_none_and_a_long_one_does(
    candidates: Candidates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "cache" / "ledger.sqlite"
    assert is_long(candidates, ledger)
    monkeypatch.setattr(local, "LEAST_S", 1e6)
    assert not is_long(candidates, ledger)
    with open_executor(candidates) as executor:
        assert isinstance(executor, OneProcess)


@pytest.mark.parametrize(("asked", "kind"), [(1, OneProcess), (2, WorkerPool)])
def test_a_number_that_is_given_is_taken(
    asked: int, kind: type[object], candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LEAST_S", 1e6)
    with open_executor(candidates, WorkerOptions(asked)) as executor:
        assert isinstance(executor, kind)
