"""Real worker processes; what they do is in `handles`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sdpack.errors import WorkerError
from sdpack.workers.assignments import MOST_DEATHS
from sdpack.workers.jobs import WorkerJob
from sdpack.workers.pool import WorkerPool

from tests.sdpack.workers import handles

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), str(ROOT / "deploy"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def pool(open_handle: Callable[[], Any], count: int = 2, **others: Any) -> WorkerPool:
    return WorkerPool(open_handle, count, threads=1, say=others.get("say", lambda _: None))


def jobs(tasks: Sequence[Any], groups: Sequence[str] | None = None) -> list[WorkerJob]:
    named = groups or [str(task) for task in tasks]
    return [WorkerJob(f"task {t}", group, t) for t, group in zip(tasks, named, strict=True)]


def test_every_job_has_its_result() -> None:
    with pool(handles.open_squares) as workers:
        results = {result.place: result.value for result in workers.run(jobs(range(20)))}
        again = [result.value for result in workers.run(jobs([5]))]
    assert results == {place: place**2 for place in range(20)}
    assert again == [25]


def test_after_a_rest_other_workers_do_the_jobs() -> None:
    with pool(handles.open_describing) as workers:
        before = {result.value["pid"] for result in workers.run(jobs(range(4)))}
        workers.rest()
        assert all(map(_gone, before))
        after = {result.value["pid"] for result in workers.run(jobs(range(4)))}
    assert before.isdisjoint(after)


def test_no_jobs_start_no_workers() -> None:
    with pool(handles.open_broken) as workers:
        assert list(workers.run([])) == []


def test_workers_have_their_share_of_threads_and_their_own_process_groups() -> None:
    with pool(handles.open_describing) as workers:
        results = [result.value for result in workers.run(jobs(range(8)))]
    assert {value["threads"] for value in results} == {"1"}
    assert len({value["pid"] for value in results}) == 2
    assert all(value["group"] == value["pid"] != os.getpgid(0) for value in results)


def test_jobs_of_a_group_go_to_the_same_worker_while_others_have_work() -> None:
    groups = ["a", "b"] * 4
    with pool(handles.open_describing) as workers:
        results = {r.place: r.value for r in workers.run(jobs(range(8), groups))}
    by_group = {
        group: {results[place]["pid"] for place in range(8) if groups[place] == group}
        for group in "ab"
    }
    # The first to finish may take over from the other at the end, but not before.
    assert min(len(pids) for pids in by_group.values()) == 1
    assert results[0]["pid"] != results[1]["pid"]


def test_lines_of_progress_arrive() -> None:
    lines: list[str] = []
    with pool(handles.open_talking, say=lines.append) as workers:
        list(workers.run(jobs(["export", "draw"])))
    assert sorted(lines) == ["doing draw", "doing export"]


def test_a_job_that_fails_says_why_and_leaves_its_worker_alive() -> None:
    with pool(handles.open_failing, 1) as workers:
        results = {r.place: r for r in workers.run(jobs(["infeasible", "fine"]))}
    assert results[0].error == "InfeasibleError: nothing fits"
    assert (results[1].value, results[1].error) == ("fine", None)


def test_a_worker_that_dies_is_replaced_and_its_job_done_again(tmp_path: Path) -> None:
    dying = handles.OpenDying(tmp_path, times=MOST_DEATHS - 1)
    with pool(dying) as workers:
        results = {r.place: r.value for r in workers.run(jobs(["a", "deadly", "b", "c"]))}
    assert results == {0: "a", 1: "deadly", 2: "b", 3: "c"}
    assert len(list(tmp_path.iterdir())) == MOST_DEATHS - 1


def test_the_third_death_at_a_job_names_it(tmp_path: Path) -> None:
    dying = handles.OpenDying(tmp_path, times=MOST_DEATHS)
    with (
        pool(dying) as workers,
        pytest.raises(WorkerError, match=r"task deadly: 3 worker .* \(signal 9\).*--workers 1"),
    ):
        list(workers.run(jobs(["a", "deadly", "b"])))


def test_a_worker_that_cannot_begin_says_why() -> None:
    with (
        pool(handles.open_broken) as workers,
        pytest.raises(WorkerError, match="RuntimeError: no such toolchain"),
    ):
        list(workers.run(jobs(["a"])))


def test_an_interrupt_kills_workers_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C raises KeyboardInterrupt while the pool waits for messages."""
    written = tmp_path / "pid"

    def interrupted(_: object) -> list[object]:
        _wait_until(lambda: written.exists() and written.read_text() != "")
        raise KeyboardInterrupt

    monkeypatch.setattr("sdpack.workers.pool.wait", interrupted)
    with pool(handles.open_sleeping, 1) as workers, pytest.raises(KeyboardInterrupt):
        next(workers.run(jobs([written])))
    assert _gone(int(written.read_text()))


def test_workers_end_with_a_killed_caller(tmp_path: Path) -> None:
    """SIGKILL leaves the caller no time to stop them."""
    code = (
        "import sys, pathlib\n"
        "from sdpack.workers.jobs import WorkerJob\n"
        "from sdpack.workers.pool import WorkerPool\n"
        "from tests.sdpack.workers import handles\n"
        "pool = WorkerPool(handles.open_sleeping, 2, 1, print)\n"
        "tasks = [pathlib.Path(name) for name in sys.argv[1:]]\n"
        "list(pool.run([WorkerJob(str(task), str(task), task) for task in tasks]))\n"
    )
    places = [tmp_path / "one", tmp_path / "two"]
    caller = subprocess.Popen([sys.executable, "-c", code, *map(str, places)])
    try:
        for place in places:
            _wait_until(lambda place=place: place.exists() and place.read_text() != "")  # type: ignore[misc]
    finally:
        caller.kill()
        caller.wait()
    for place in places:
        _wait_until(lambda place=place: _gone(int(place.read_text())))  # type: ignore[misc]


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
