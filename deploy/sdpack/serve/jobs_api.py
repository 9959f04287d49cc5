"""Jobs: start one, look at it later, or follow its steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from sdpack.serve.answers import ERRORS, NotFoundError, error_data
from sdpack.serve.openai_api import image_data, image_request
from sdpack.serve.schemas import JobData, JobRequest
from sdpack.serve.service import Service
from sdpack.serve.waiting import check_ready
from sdpack.serve.work import Job, Status

EVENTS = "text/event-stream"
BEAT_S = 15.0  # between keep-alive comments on an idle stream
ALIVE = ": still here\n\n"


def job_routes(service: Service) -> APIRouter:
    """The routes under /v1/jobs."""
    routes = APIRouter(tags=["jobs"], responses={s: ERRORS[s] for s in (400, 401, 413)})

    @routes.post(
        "/v1/jobs",
        status_code=202,
        responses={s: ERRORS[s] for s in (404, 429, 503)},
    )
    async def start(asked: JobRequest, request: Request, response: Response) -> JobData:
        """Start drawing images, and answer at once."""
        check_ready(service)
        job = service.submit(image_request(service, asked))
        response.headers["location"] = f"{request.scope['root_path']}/v1/jobs/{job.id}"
        return _data(request, job)

    @routes.get(
        "/v1/jobs/{name}",
        response_model=JobData,
        responses={200: {"content": {EVENTS: {}}}, 404: ERRORS[404]},
    )
    async def look(name: str, request: Request) -> JobData | StreamingResponse:
        """A job's progress; with Accept: text/event-stream, a stream of its steps."""
        job = _found(service, name)
        if EVENTS in request.headers.get("accept", ""):
            return StreamingResponse(_events(request, job), media_type=EVENTS)
        return _data(request, job)

    @routes.delete("/v1/jobs/{name}", responses={404: ERRORS[404]})
    async def cancel(name: str, request: Request) -> JobData:
        """Cancel a job; images being drawn stop before their next step."""
        job = _found(service, name)
        service.scheduler.cancel(job)
        return _data(request, job)

    return routes


def _found(service: Service, name: str) -> Job:
    job = service.jobs.find(name)
    if job is None:
        raise NotFoundError("there is no such job, or it has expired")
    return job


def _data(request: Request, job: Job) -> JobData:
    done = job.status is Status.DONE
    images = [image_data(request, job, n) for n in range(len(job.images))] if done else []
    return JobData(
        id=job.id,
        created=int(job.created),
        status=job.status.value,
        progress=round(job.progress, 4),
        step=job.step,
        steps=job.steps,
        made=job.made,
        n=len(job.images),
        seed=job.asked.seed,
        error=None if job.error is None else error_data(job.error)[1],
        warnings=list(job.asked.warnings),
        data=images,
    )


async def _events(request: Request, job: Job) -> AsyncIterator[str]:
    """Server-sent events: "progress" after each change, then one named by the final status."""
    changes = job.changes()
    following = asyncio.ensure_future(anext(changes))
    try:
        while True:
            done, _ = await asyncio.wait((following,), timeout=BEAT_S)
            if not done:
                yield ALIVE
                continue
            try:
                following.result()
            except StopAsyncIteration:
                return
            ended = job.status.ended
            name = job.status.value if ended else "progress"
            yield f"event: {name}\ndata: {_data(request, job).model_dump_json()}\n\n"
            if ended:
                return
            following = asyncio.ensure_future(anext(changes))
    finally:
        following.cancel()
