"""The part of AUTOMATIC1111's web UI API that front ends draw with."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from fastapi import APIRouter, Request

from sdpack.artifacts import digest
from sdpack.serve.answers import ERRORS
from sdpack.serve.pictures import Format
from sdpack.serve.service import Service
from sdpack.serve.shapes import WebUiModel, WebUiPictures, WebUiProgress, WebUiRequest
from sdpack.serve.waiting import drawn
from sdpack.serve.work import GivenUpError, Job

RANDOM = -1


def webui_routes(service: Service) -> APIRouter:
    """The routes under /sdapi/v1."""
    routes = APIRouter(prefix="/sdapi/v1", tags=["web UI"], responses={401: ERRORS[401]})
    under_way: list[Job] = []  # of these routes: others' jobs are nobody's business here
    failing: dict[int | str, dict[str, Any]] = {
        status: ERRORS[status] for status in (400, 413, 429, 500, 503, 504)
    }

    @routes.post("/txt2img", responses=failing)
    async def draw(asked: WebUiRequest, request: Request) -> WebUiPictures:
        """Draw pictures, and answer once they are drawn."""
        height, width = service.sizes[0]
        wanted = service.asked(
            asked.prompt,
            asked.batch_size * asked.n_iter,
            Format(),
            f"{asked.width or width}x{asked.height or height}",
            None if asked.seed == RANDOM else asked.seed,
            asked.steps,
            asked.cfg_scale,
            asked.negative_prompt,
        )
        try:
            job, files = await drawn(service, request, wanted, under_way)
        except GivenUpError as error:  # by /interrupt
            if service.scheduler.ending:
                raise
            job, files = error.job, []
        images = [base64.b64encode(file).decode() for file in files] if asked.send_images else []
        info = json.dumps(_info(service, job, len(files)))
        return WebUiPictures(images=images, parameters=asked.model_dump(), info=info)

    @routes.get("/sd-models")
    async def models() -> list[WebUiModel]:
        """The one model there is."""
        content = _content(service)
        title = f"{service.name} [{content[:10]}]"
        return [
            WebUiModel(
                title=title,
                model_name=service.name,
                hash=content[:10],
                sha256=content,
                filename=service.name,
            )
        ]

    @routes.get("/samplers")
    async def samplers() -> list[dict[str, Any]]:
        """The one sampler there is."""
        return [{"name": "bundle", "aliases": [], "options": {}}]

    @routes.get("/options")
    async def options() -> dict[str, Any]:
        """The settings front ends look at."""
        return {"sd_model_checkpoint": service.name, "sd_checkpoint_hash": _content(service)}

    @routes.post("/options")
    async def set_options(wanted: dict[str, Any]) -> None:
        """Taken and not used: there is one model, and its settings come with each request."""

    @routes.get("/progress")
    async def progress(skip_current_image: bool = False) -> WebUiProgress:
        """How far the oldest job under way is."""
        job = next(iter(under_way), None)
        return WebUiProgress(
            progress=0.0 if job is None else round(job.progress, 4),
            eta_relative=0.0 if job is None else _eta(job),
            state=_state(job),
        )

    @routes.post("/interrupt")
    async def interrupt() -> dict[str, Any]:
        """Give the oldest job under way up."""
        job = next(iter(under_way), None)
        if job is not None:
            service.scheduler.cancel(job)
        return {}

    return routes


def _content(service: Service) -> str:
    """One hash of all that is served."""
    return digest(dict(service.manifest.files))


def _info(service: Service, job: Job, count: int) -> dict[str, Any]:
    """What the web UI says of so many pictures of a job."""
    kind, seeds = job.asked.kind, [picture.seed for picture in job.pictures[:count]]
    return {
        "prompt": job.asked.prompt,
        "all_prompts": [job.asked.prompt] * count,
        "negative_prompt": kind.negative_prompt,
        "all_negative_prompts": [kind.negative_prompt] * count,
        "seed": job.asked.seed,
        "all_seeds": seeds,
        "width": kind.width,
        "height": kind.height,
        "sampler_name": "bundle",
        "cfg_scale": kind.guidance_scale,
        "steps": kind.steps,
        "batch_size": count,
        "sd_model_name": service.name,
        "sd_model_hash": _content(service)[:10],
        "infotexts": [_words(job, seed) for seed in seeds],
        "subseed": job.asked.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "comments": "\n".join(job.asked.warnings),
    }


def _words(job: Job, seed: int) -> str:
    """How a picture was made, as the web UI writes it into a file."""
    kind = job.asked.kind
    lines = [job.asked.prompt]
    if kind.negative_prompt:
        lines.append(f"Negative prompt: {kind.negative_prompt}")
    size = f"{kind.width}x{kind.height}"
    scale = f"CFG scale: {kind.guidance_scale:g}"
    lines.append(f"Steps: {kind.steps}, Sampler: bundle, {scale}, Seed: {seed}, Size: {size}")
    return "\n".join(lines)


def _state(job: Job | None) -> dict[str, Any]:
    stamp = "0" if job is None else time.strftime("%Y%m%d%H%M%S", time.localtime(job.created))
    return {
        "skipped": False,
        "interrupted": False,
        "job": "" if job is None else "txt2img",
        "job_count": 0 if job is None else len(job.pictures),
        "job_timestamp": stamp,
        "job_no": 0 if job is None else job.made,
        "sampling_step": 0 if job is None else job.step,
        "sampling_steps": 0 if job is None else job.steps,
    }


def _eta(job: Job) -> float:
    """Seconds it will still take, if it goes on as it went."""
    if not job.progress:
        return 0.0
    return round((time.time() - job.created) * (1 / job.progress - 1), 2)
