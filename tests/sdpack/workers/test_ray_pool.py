"""Real workers of a real Ray cluster: two raylets on this machine, with one CPU each."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sdpack.errors import WorkerError
from sdpack.workers.assignments import MOST_DEATHS
from sdpack.workers.jobs import EARLIER, WorkerJob
from sdpack.workers.ray_cluster import WorkerNeeds, connected
from sdpack.workers.ray_pool import RayPool

from tests.ray_nodes import RayNodes
from tests.sdpack.workers import handles

NEEDS = WorkerNeeds(1, 64 * 2**20)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with RayNodes() as nodes:
        nodes.add()
        nodes.add(gpus=1)
        with connected(nodes.address):
            yield nodes


def pool(open_handle: Callable[[], Any], count: int | None = None, **others: Any) -> RayPool:
    return RayPool(open_handle, others.get("needs", NEEDS), count, others.get("say", _silent))


def _silent(_: str) -> None:
    pass


def jobs(tasks: Sequence[Any], needs_gpu: bool = False) -> list[WorkerJob]:
    return [WorkerJob(f"task {t}", str(t), t, needs_gpu) for t in tasks]


@pytest.mark.usefixtures("cluster")
def test_every_job_has_its_result() -> None:
    with pool(handles.open_squares) as workers:
        results = {result.place: result.value for result in workers.run(jobs(range(20)))}
        again = [result.value for result in workers.run(jobs([5]))]
    assert results == {place: place**2 for place in range(20)}
    assert again == [25]


@pytest.mark.usefixtures("cluster")
def test_workers_run_on_all_machines_with_their_share_of_threads() -> None:
    with pool(handles.open_describing) as workers:
        results = [result.value for result in workers.run(jobs(range(12)))]
    assert {value["threads"] for value in results} == {"1"}
    assert len({value["pid"] for value in results}) == 2


@pytest.mark.usefixtures("cluster")
def test_only_jobs_that_need_a_gpu_get_one() -> None:
    with pool(handles.open_seeing_gpus) as workers:
        mixed = [*jobs(["a", "b"]), *jobs(["c", "d"], needs_gpu=True)]
        results = {r.place: r.value for r in workers.run(mixed)}
    assert (results[2], results[3]) == ("0", "0")
    assert results[0] in ("", None)


@pytest.mark.usefixtures("cluster")
def test_idle_workers_do_jobs_ahead_whose_results_come_later(tmp_path: Path) -> None:
    slow = handles.OpenWaiting(tmp_path)
    awaited = [WorkerJob("a", "a", "a"), WorkerJob("b", "b", "b 0.5")]
    ahead = [WorkerJob(t, t, t, is_ahead=True, key=t) for t in ("c", "d 2", "e")]
    with pool(slow, 2) as workers:
        list(workers.run(jobs(["x 1", "y 1"])))  # both workers begin
        first = {r.place: r.value for r in workers.run([*awaited, *ahead])}
        assert {0, 1, 2} <= first.keys(), "a worker that was idle did one ahead"
        assert 3 not in first, "and began another, which nobody waits for"
        next_jobs = [WorkerJob("d", "d", "d 2", key="d 2"), WorkerJob("f", "f", "f")]
        second = {r.place: r.value for r in workers.run(next_jobs)}
    assert second == {0: "d 2", 1: "f"}
    assert len(list(tmp_path.glob("d 2.*"))) == 1, "it was done once"


@pytest.mark.usefixtures("cluster")
def test_a_result_of_a_job_ahead_comes_even_if_it_is_not_asked_for(tmp_path: Path) -> None:
    slow = handles.OpenWaiting(tmp_path)
    with pool(slow, 2) as workers:
        list(workers.run(jobs(["x 1", "y 1"])))  # both workers begin
        ahead = WorkerJob("c", "c", "c 1", is_ahead=True, key="c")
        list(workers.run([WorkerJob("a", "a", "a 0.2"), ahead]))
        results = list(workers.run([WorkerJob("d", "d", "d 2"), WorkerJob("e", "e", "e")]))
    assert {r.place: r.value for r in results} == {EARLIER: "c 1", 0: "d 2", 1: "e"}


@pytest.mark.usefixtures("cluster")
def test_a_job_that_fails_says_why_and_lines_of_progress_arrive() -> None:
    lines: list[str] = []
    with pool(handles.open_failing, 1) as workers:
        results = {r.place: r for r in workers.run(jobs(["infeasible", "fine"]))}
    assert results[0].error == "InfeasibleError: nothing fits"
    assert (results[1].value, results[1].error) == ("fine", None)
    with pool(handles.open_talking, 1, say=lines.append) as workers:
        list(workers.run(jobs(["export"])))
    assert lines == ["doing export"]


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_dies_is_replaced_and_its_job_done_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dying = handles.OpenDying(tmp_path, times=MOST_DEATHS - 1)
    with pool(dying, 2) as workers:
        results = {r.place: r.value for r in workers.run(jobs(["a", "deadly", "b", "c"]))}
    assert results == {0: "a", 1: "deadly", 2: "b", 3: "c"}
    assert len(list(tmp_path.iterdir())) == MOST_DEATHS - 1
    assert capfd.readouterr().out == "", "Ray would print where results go"


@pytest.mark.usefixtures("cluster")
def test_the_third_death_at_a_job_names_it(tmp_path: Path) -> None:
    dying = handles.OpenDying(tmp_path, times=MOST_DEATHS)
    with (
        pool(dying, 1) as workers,
        pytest.raises(WorkerError, match=r"task deadly: 3 worker processes died .*fewer --workers"),
    ):
        list(workers.run(jobs(["deadly"])))


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_cannot_begin_says_why() -> None:
    with (
        pool(handles.open_broken) as workers,
        pytest.raises(WorkerError, match="a worker cannot begin: no such toolchain"),
    ):
        list(workers.run(jobs(["a"])))


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_room_is_refused() -> None:
    needs = WorkerNeeds(1, 2**50)
    with (
        pool(handles.open_squares, needs=needs) as workers,
        pytest.raises(WorkerError, match=r"no machine of the Ray cluster has 1 CPUs, and 1048576"),
    ):
        list(workers.run(jobs([1])))


def test_jobs_of_a_machine_that_is_lost_are_done_on_another(
    cluster: RayNodes, tmp_path: Path
) -> None:
    lost = cluster.add()
    slow = handles.OpenSlowOnce(tmp_path)

    def kill() -> None:
        while len(list(tmp_path.glob("*.began"))) < 3:
            time.sleep(0.05)
        os.kill(lost, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with pool(slow) as workers:
        killer.start()
        results = {r.place: r.value for r in workers.run(jobs(["a", "b", "c", "d", "e", "f"]))}
    killer.join()
    assert results == dict(enumerate("abcdef"))
