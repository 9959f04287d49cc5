from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.errors import WorkerError
from sdpack.workers.assignments import MOST_DEATHS, SLOW, Assignments
from sdpack.workers.jobs import WorkerJob


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def assignments(groups: Sequence[str], gpus: Sequence[bool] = ()) -> tuple[Assignments, Clock]:
    clock = Clock()
    needs = gpus or [False] * len(groups)
    jobs = [
        WorkerJob(f"job {place}", group, place, needs_gpu)
        for place, (group, needs_gpu) in enumerate(zip(groups, needs, strict=True))
    ]
    return Assignments(jobs, clock), clock


def test_a_worker_prefers_its_own_group_then_its_machine_s_then_a_free_one() -> None:
    found, _ = assignments("abcab")
    assert found.take([{"b"}, {"c"}], taken={"a"}) == 1
    assert found.take([{"x"}, {"c"}], taken={"a"}) == 2
    assert found.take([{"x"}, {"y"}], taken={"a"}) == 4
    assert found.take([{"x"}], taken={"a"}) == 0
    assert found.take([{"x"}], taken={"a"}) == 3
    assert found.take([{"a"}]) is None


def test_jobs_for_a_gpu_go_to_workers_with_one() -> None:
    found, _ = assignments("ab", [True, False])
    assert (found.waiting_for(True), found.waiting_for(False)) == (1, 1)
    assert found.take([], has_gpu=False) == 1
    assert found.take([], has_gpu=False) is None
    assert found.take([], has_gpu=True) == 0


def test_a_slow_job_is_given_to_a_second_worker_at_the_end() -> None:
    found, clock = assignments("abcde")
    places = [found.take([]) for _ in range(4)]
    clock.seconds = 10.0
    assert all(found.finish(place) for place in places[:3] if place is not None)
    clock.seconds = 10.0 * SLOW + 1
    assert found.take_slow() is None, "a job still waits"
    assert found.take([]) == 4
    assert found.take_slow(own=[3]) is None
    assert found.take_slow() == 3
    assert found.take_slow() is None, "two workers do it"
    assert found.finish(3)
    assert not found.finish(3), "the second result does not count"
    found.lose(3, "killed", "wait")
    assert found.waiting == 0
    assert found.finish(4)
    assert found.is_done


def test_a_job_whose_second_worker_dies_is_still_done_by_the_first() -> None:
    found, clock = assignments("abcd")
    for _ in range(4):
        found.take([])
    clock.seconds = 1.0
    for place in range(3):
        found.finish(place)
    clock.seconds = 1.0 + 2 * SLOW
    assert found.take_slow() == 3
    found.lose(3, "killed", "wait")
    assert found.waiting == 0
    found.lose(3, "killed", "wait")
    assert found.take([]) == 3


def test_jobs_ahead_are_given_only_when_they_are_asked_for_and_not_waited_for() -> None:
    found = Assignments(
        [WorkerJob("a", "a", 0), WorkerJob("b", "b", 1, is_ahead=True, key="b")], Clock()
    )
    assert found.take([{"b"}]) == 0
    assert found.take([]) is None
    assert found.take([], is_ahead=True) == 1
    assert not found.is_done
    found.finish(0)
    assert found.is_done
    found.lose(1, "killed", "wait")
    assert found.take([], is_ahead=True) is None, "it is not done again"


def test_a_job_that_is_being_done_is_not_given_again() -> None:
    found = Assignments([WorkerJob("a", "a", 0, key="x"), WorkerJob("b", "b", 1)], Clock())
    assert found.adopt("y") is None
    assert found.adopt("x") == 0
    assert found.adopt("x") is None
    assert found.take([]) == 1
    found.lose(0, "killed", "wait")
    assert found.take([]) == 0


def test_the_third_death_at_a_job_names_it() -> None:
    found, _ = assignments("ab")
    for _ in range(MOST_DEATHS - 1):
        assert found.take([]) == 0
        found.lose(0, "signal 9", "wait")
    assert found.take([]) == 0
    with pytest.raises(
        WorkerError, match=r"job 0: 3 worker processes died of it \(signal 9\); wait"
    ):
        found.lose(0, "signal 9", "wait")


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["end", "die", "wait"])), max_size=60),
)
def test_every_job_ends_once_whatever_happens(
    groups: list[str], events: list[tuple[int, str]]
) -> None:
    """Four workers take, finish and lose jobs in any order; then one of them does the rest."""
    found, clock = assignments(groups)
    doing: dict[int, int] = {}
    deaths, ended = [0] * len(groups), []
    for worker, event in events:
        clock.seconds += 1
        if worker not in doing:
            place = found.take([{groups[worker % len(groups)]}])
            place = found.take_slow() if place is None else place
            if place is not None:
                doing[worker] = place
        elif event == "end":
            place = doing.pop(worker)
            if found.finish(place):
                ended.append(place)
        elif event == "die" and deaths[doing[worker]] < MOST_DEATHS - 1:
            place = doing.pop(worker)
            deaths[place] += 1
            found.lose(place, "killed", "wait")
    for place in doing.values():
        if found.finish(place):
            ended.append(place)
    while (place := found.take([])) is not None:
        assert found.finish(place)
        ended.append(place)
    assert found.is_done
    assert sorted(ended) == list(range(len(groups)))
