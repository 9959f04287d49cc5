from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdpack.serve.work import CancelledJobError, Job, Status, outcome

from tests.sdpack.serve.fakes import STEPS, asked

ENDED = (Status.DONE, Status.FAILED, Status.CANCELLED)


def test_pictures_start_from_seeds_that_count_up() -> None:
    job = Job(asked(count=3, seed=7))
    assert [picture.seed for picture in job.images] == [7, 8, 9]
    assert len({job.id, Job(asked()).id}) == 2


@given(st.integers(1, 6), st.data())
def test_progress_is_the_share_of_all_steps(count: int, data: st.DataObject) -> None:
    made = data.draw(st.integers(0, count))
    drawing = data.draw(st.integers(0, count - made))
    step = data.draw(st.integers(0, STEPS))
    job = Job(asked(count=count))
    job.advance(status=Status.RUNNING, made=made, drawing=drawing, step=step)
    done = made * STEPS + drawing * step
    assert job.progress == pytest.approx(done / (count * STEPS))


@pytest.mark.parametrize("ending", ENDED)
def test_a_job_ends_once(ending: Status) -> None:
    job = Job(asked())
    job.images[0].encoded = b"a picture"
    job.advance(status=ending)
    assert job.ended is not None
    assert not job.images[0].wanted
    job.advance(status=Status.RUNNING, made=5)
    assert (job.status, job.made) == (ending, 0)
    # Of a job that was given up, what had been drawn is nobody's.
    assert job.files == ([b"a picture"] if ending is Status.DONE else [])


def test_changes_are_yielded_until_the_job_ends() -> None:
    async def follow() -> list[tuple[str, int]]:
        job, heard = Job(asked()), list[tuple[str, int]]()
        changes: list[dict[str, Any]] = [
            {"status": Status.RUNNING},
            {"step": 2},
            {"status": Status.DONE},
            {"step": 3},
        ]
        async for seen in job.changes():
            heard.append((seen.status.value, seen.step))
            seen.advance(**changes[len(heard) - 1])
        await job.finished()
        return heard

    assert asyncio.run(follow()) == [("queued", 0), ("running", 0), ("running", 2), ("done", 2)]


def test_the_outcome_is_the_files_or_an_error() -> None:
    job = Job(asked(count=2))
    for picture in job.images:
        picture.encoded = bytes(picture.number + 1)
    job.advance(status=Status.DONE)
    assert (outcome(job), job.bytes) == ([bytes(1), bytes(2)], 3)
    given_up, failed = Job(asked()), Job(asked())
    given_up.advance(status=Status.CANCELLED)
    with pytest.raises(CancelledJobError):
        outcome(given_up)
    failed.advance(status=Status.FAILED, error=ValueError("why"))
    with pytest.raises(ValueError, match="why"):
        outcome(failed)
