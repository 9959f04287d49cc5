"""Waiting for a job on behalf of a client that may disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import Request

from sdpack.serve.answers import GoneError, NotReadyError
from sdpack.serve.service import Service
from sdpack.serve.work import ImageRequest, Job, outcome


def check_ready(service: Service) -> None:
    """Raises NotReadyError unless the service is ready."""
    if service.failed is not None:
        raise NotReadyError(f"the bundle cannot be served: {service.failed}")
    if not service.ready:
        raise NotReadyError("the engines are being loaded; try again in a moment")


async def drawn(
    service: Service,
    request: Request,
    asked: ImageRequest,
    under_way: list[Job] | None = None,
    keep: bool = False,
) -> tuple[Job, Sequence[bytes]]:
    """Submit a job and wait for its images; it is cancelled if the client disconnects.

    Args:
        under_way: a list that holds the job meanwhile.
        keep: whether the images are fetched later.

    Raises:
        SdpackError: it was not accepted, or could not be drawn.
        GoneError: the client has disconnected.
    """
    check_ready(service)
    job = service.submit(asked, keep)
    listed = [] if under_way is None else under_way
    listed.append(job)
    done = asyncio.ensure_future(job.finished())
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
        if not job.status.ended:
            service.scheduler.cancel(job)
            raise GoneError("the client has disconnected")
    finally:
        listed.remove(job)
        done.cancel()
        gone.cancel()
        if not job.status.ended:
            service.scheduler.cancel(job)
    files = outcome(job)
    if not keep:
        job.free_images()
    return job, files


async def _left(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
