from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.serve.limits import Limits
from sdpack.serve.scheduler import BusyError, EndingError, Scheduler
from sdpack.serve.work import Job, Status, TimedOutError, outcome

from tests.sdpack.serve.clients import GENERATE
from tests.sdpack.serve.fakes import KIND, FakeWorker, asked, service

NO_WAIT = Limits(wait_s=0.0)


@asynccontextmanager
async def running(
    worker: FakeWorker, limits: Limits = NO_WAIT, batch: int = 4
) -> AsyncIterator[Scheduler]:
    scheduler = service(worker, limits, batch).scheduler
    task = asyncio.create_task(scheduler.run())
    try:
        yield scheduler
    finally:
        worker.go.set()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(scheduler.close)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def begun(worker: FakeWorker) -> None:
    assert await asyncio.to_thread(worker.begun.wait, 10)


async def ended(*jobs: Job) -> None:
    await asyncio.gather(*(job.finished() for job in jobs))


def test_what_waits_is_drawn_together_up_to_the_batch() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker) as scheduler:
            first = scheduler.submit(asked("first"))
            await begun(worker)
            others = [scheduler.submit(asked(f"p{n}")) for n in range(5)]
            assert scheduler.depth == 6
            worker.go.set()
            await ended(first, *others)
            assert worker.batches == [["first"], ["p0", "p1", "p2", "p3"], ["p4"]]
            assert all(job.status is Status.DONE and len(job.files) == 1 for job in others)
            assert scheduler.depth == 0

    run(test)


def test_only_what_is_alike_is_drawn_together_the_oldest_first() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        wide, quick = replace(KIND, width=96), replace(KIND, steps=2)
        async with running(worker) as scheduler:
            jobs = [scheduler.submit(asked("first"))]
            await begun(worker)
            for number, kind in enumerate((KIND, wide, KIND, quick, wide)):
                jobs.append(scheduler.submit(asked(str(number), kind=kind)))
            worker.go.set()
            await ended(*jobs)
            assert worker.batches == [["first"], ["0", "2"], ["1", "4"], ["3"]]

    run(test)


def test_a_batch_waits_a_little_for_more() -> None:
    async def test() -> None:
        worker = FakeWorker()
        async with running(worker, Limits(wait_s=5.0), batch=2) as scheduler:
            one = scheduler.submit(asked("one"))
            await asyncio.sleep(0.05)
            assert worker.batches == []
            two = scheduler.submit(asked("two"))
            await ended(one, two)  # a full batch does not wait
            assert worker.batches == [["one", "two"]]

    run(test)


def test_a_batch_that_nothing_joins_is_drawn_all_the_same() -> None:
    async def test() -> None:
        worker = FakeWorker()
        async with running(worker, Limits(wait_s=0.05)) as scheduler:
            await ended(scheduler.submit(asked()))
            assert worker.batches == [["a cat"]]

    run(test)


def test_a_job_of_many_pictures_is_drawn_in_batches_from_seeds_that_follow() -> None:
    async def test() -> None:
        worker = FakeWorker()
        async with running(worker) as scheduler:
            job = scheduler.submit(asked(count=6, seed=7))
            await ended(job)
            assert [len(batch) for batch in worker.batches] == [4, 2]
            assert [picture.seed for picture in job.images] == list(range(7, 13))
            assert len(outcome(job)) == 6

    run(test)


def test_a_full_queue_refuses_and_says_when_to_ask_again() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker, replace(NO_WAIT, queue=3)) as scheduler:
            scheduler.submit(asked(count=1))
            await begun(worker)
            scheduler.submit(asked(count=1))
            with pytest.raises(BusyError, match="2 pictures are waiting") as caught:
                scheduler.submit(asked(count=2))
            assert caught.value.retry_s >= 1
            job = scheduler.submit(asked(count=1))
            worker.go.set()
            await ended(job)
            assert job.status is Status.DONE

    run(test)


def test_a_cancelled_job_stops_before_its_next_step() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker) as scheduler:
            job = scheduler.submit(asked("gone"))
            await begun(worker)
            scheduler.cancel(job)
            assert job.status is Status.CANCELLED
            after = scheduler.submit(asked("after"))
            worker.go.set()
            await ended(after)
            assert worker.steps == [0, 4]
            assert after.status is Status.DONE

    run(test)


def test_who_is_drawn_with_a_cancelled_job_is_drawn_to_the_end() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker) as scheduler:
            first = scheduler.submit(asked("first"))
            await begun(worker)
            gone, stays = (scheduler.submit(asked(name)) for name in ("gone", "stays"))
            waiting = scheduler.submit(asked("dropped", kind=replace(KIND, steps=2)))
            scheduler.cancel(waiting)
            worker.go.set()
            await first.finished()
            scheduler.cancel(gone)
            await ended(stays)
            assert stays.status is Status.DONE
            assert gone.status is Status.CANCELLED
            assert not gone.files
            assert ["dropped"] not in worker.batches

    run(test)


def test_a_broken_picture_fails_its_own_job_alone() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker) as scheduler:
            first = scheduler.submit(asked("first"))
            await begun(worker)
            broken, whole = scheduler.submit(asked("broken")), scheduler.submit(asked("whole"))
            worker.go.set()
            await ended(first, broken, whole)
            assert worker.batches[1] == ["broken", "whole"]
            assert whole.status is Status.DONE
            assert broken.status is Status.FAILED
            with pytest.raises(Exception, match="flat colour"):
                outcome(broken)

    run(test)


def test_whatever_a_kernel_raises_the_next_batch_is_drawn() -> None:
    async def test() -> None:
        worker = FakeWorker()
        async with running(worker) as scheduler:
            failed = scheduler.submit(asked("fail"))
            await ended(failed)
            after = scheduler.submit(asked("after"))
            await ended(after)
            assert (failed.status, after.status) == (Status.FAILED, Status.DONE)

    run(test)


@pytest.mark.parametrize("is_drawn", [True, False])
def test_a_job_that_takes_too_long_ends(is_drawn: bool) -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker, replace(NO_WAIT, timeout_s=0.2)) as scheduler:
            first = scheduler.submit(asked("first"))
            await begun(worker)
            job = first if is_drawn else scheduler.submit(asked("late"))
            await ended(job)
            assert isinstance(job.error, TimedOutError)
            assert ("ran" if is_drawn else "waited") in str(job.error)
            worker.go.set()
            later = scheduler.submit(asked("later"))
            await ended(later)
            assert later.status is Status.DONE

    run(test)


def test_draining_finishes_what_was_accepted_and_takes_nothing_new() -> None:
    async def test() -> None:
        worker = FakeWorker()
        worker.go.clear()
        async with running(worker, Limits(wait_s=60.0)) as scheduler:
            jobs = [scheduler.submit(asked(str(number))) for number in range(6)]
            await begun(worker)
            draining = asyncio.create_task(scheduler.drain())
            await asyncio.sleep(0.05)
            assert not draining.done()
            with pytest.raises(EndingError):
                scheduler.submit(asked())
            worker.go.set()
            await draining
            assert [job.status for job in jobs] == [Status.DONE] * 6
        assert worker.closed

    run(test)


def test_draining_an_idle_scheduler_takes_no_time() -> None:
    async def test() -> None:
        async with running(FakeWorker()) as scheduler:
            await scheduler.drain()

    run(test)


def test_steps_are_told_as_they_are_made() -> None:
    async def test() -> None:
        worker = FakeWorker()
        async with running(worker) as scheduler:
            job = scheduler.submit(asked(count=2))
            seen = [(each.status, each.step, each.made) async for each in job.changes()]
            assert seen[0] == (Status.QUEUED, 0, 0)
            assert seen[-1] == (Status.DONE, seen[-1][1], 2)
            assert job.progress == 1.0

    run(test)


def test_how_it_ended_is_told_even_to_who_was_slow() -> None:
    async def test() -> None:
        worker = FakeWorker()
        async with running(worker) as scheduler:
            job = scheduler.submit(asked())
            seen = []
            async for each in job.changes():
                seen.append(each.status)
                await asyncio.sleep(0.05)  # meanwhile it goes on, and ends
            assert seen[-1] is Status.DONE

    run(test)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 6), st.sampled_from([2, 4])),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("breathe"), st.just(0), st.just(0)),
    ),
    max_size=20,
)


@given(ACTS)
def test_every_accepted_job_ends_once_and_no_batch_is_too_large(
    acts: list[tuple[str, int, int]],
) -> None:
    async def test() -> None:
        worker = FakeWorker()
        jobs: list[Job] = []
        async with running(worker, replace(NO_WAIT, queue=12), batch=3) as scheduler:
            for act, number, steps in acts:
                if act == "submit":
                    with suppress(BusyError):
                        kind = replace(KIND, steps=steps)
                        jobs.append(scheduler.submit(asked(count=number, kind=kind)))
                elif act == "cancel" and number < len(jobs):
                    scheduler.cancel(jobs[number])
                else:
                    await asyncio.sleep(0)
                assert scheduler.depth <= 12
            await ended(*jobs)
            await scheduler.drain()
            assert scheduler.depth == 0
            for job in jobs:
                assert job.status in (Status.DONE, Status.CANCELLED)
                if job.status is Status.DONE:
                    assert len(job.files) == len(job.images)
        assert all(1 <= len(batch) <= 3 for batch in worker.batches)

    run(test)


def test_a_file_that_cannot_be_written_fails_its_own_job(
    asking: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> bytes:
        raise OSError("no such codec")

    with monkeypatch.context() as patch:
        patch.setattr("sdpack.serve.scheduler.encode", encode)
        answer = asking.post(GENERATE, json={"prompt": "a"})
    assert answer.status_code == 500
    assert "codec" not in answer.text
    assert asking.post(GENERATE, json={"prompt": "a"}).status_code == 200
