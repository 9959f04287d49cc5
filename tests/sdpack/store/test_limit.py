from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sdpack.store.limit import IN_USE, CacheLimit, is_running

URL = "file:///shared"


@dataclass(frozen=True)
class Artifact:
    folder: Path
    bytes: int
    used_at: float
    published_at: str | None = URL


@pytest.fixture
def artifacts(tmp_path: Path) -> list[Artifact]:
    """Four artifacts of 100 bytes, the first of which was not used for longest."""
    made = [Artifact(tmp_path / "graph" / str(n), 100, float(n)) for n in range(4)]
    for artifact in made:
        artifact.folder.mkdir(parents=True)
    return made


def left(artifacts: list[Artifact]) -> list[int]:
    return [n for n, artifact in enumerate(artifacts) if artifact.folder.exists()]


def test_artifacts_that_were_not_used_for_longest_are_removed(
    tmp_path: Path, artifacts: list[Artifact]
) -> None:
    CacheLimit(tmp_path, 250, URL).add(artifacts[3], artifacts)
    assert left(artifacts) == [2, 3]


@pytest.mark.parametrize("another", [None, "file:///elsewhere"])
def test_an_artifact_that_is_nowhere_else_stays(
    tmp_path: Path, artifacts: list[Artifact], another: str | None
) -> None:
    artifacts[0] = replace(artifacts[0], published_at=another)
    CacheLimit(tmp_path, 250, URL).add(artifacts[3], artifacts)
    assert left(artifacts) == [0, 3]


def test_an_artifact_that_a_running_process_uses_stays(
    tmp_path: Path, artifacts: list[Artifact]
) -> None:
    limit = CacheLimit(tmp_path, 250, URL)
    limit.mark(artifacts[0])
    limit.mark(artifacts[0])
    other = tmp_path / IN_USE / str(os.getppid()) / "graph-1"
    other.parent.mkdir()
    other.touch()
    limit.add(artifacts[3], artifacts)
    assert left(artifacts) == [0, 1, 3]


def test_marks_of_processes_that_ended_do_not_count(
    tmp_path: Path, artifacts: list[Artifact]
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_running(str(ended.pid))
    mark = tmp_path / IN_USE / str(ended.pid) / "graph-0"
    mark.parent.mkdir(parents=True)
    mark.touch()
    CacheLimit(tmp_path, 350, URL).add(artifacts[3], artifacts)
    assert left(artifacts) == [1, 2, 3]
    assert not mark.parent.exists()


def test_small_additions_do_not_look_through_all_artifacts(
    tmp_path: Path, artifacts: list[Artifact]
) -> None:
    limit, lookups = CacheLimit(tmp_path, 10_000, URL), list[int]()

    def every() -> Iterator[Artifact]:
        lookups.append(1)
        yield from artifacts

    for _ in range(11):
        limit.add(artifacts[3], every())
    assert len(lookups) == 2, "at the start, and after more than 500 bytes"
