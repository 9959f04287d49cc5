"""The part of AUTOMATIC1111's web UI API that front ends draw with."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from fastapi import APIRouter, Request

from sdpack.runtime.infotext import SHORT_HASH, GenerationParameters, program_version
from sdpack.runtime.pictures import Format
from sdpack.serve.answers import ERRORS
from sdpack.serve.inference_worker import parameters_of
from sdpack.serve.schemas import WebUiImages, WebUiProgress, WebUiRequest
from sdpack.serve.service import Service
from sdpack.serve.waiting import drawn
from sdpack.serve.webui_about import WEBUI_PREFIX, about_routes
from sdpack.serve.webui_settings import check_request
from sdpack.serve.work import CancelledJobError, ImageRequest, Job

RANDOM = -1


def webui_routes(service: Service) -> APIRouter:
    """The routes under /sdapi/v1."""
    routes = APIRouter()
    routes.include_router(_drawing_routes(service))
    routes.include_router(about_routes(service))
    return routes


def _drawing_routes(service: Service) -> APIRouter:
    """Return the routes that draw images, report progress or stop drawing."""
    routes = APIRouter(prefix=WEBUI_PREFIX, tags=["web UI"], responses={401: ERRORS[401]})
    under_way: list[Job] = []  # only the jobs of these routes
    failing: dict[int | str, dict[str, Any]] = {
        status: ERRORS[status] for status in (400, 404, 413, 429, 500, 503, 504)
    }

    @routes.post("/txt2img", responses=failing)
    async def draw(asked: WebUiRequest, request: Request) -> WebUiImages:
        """Draw images, and answer when they are finished."""
        try:
            job, files = await drawn(service, request, _image_request(service, asked), under_way)
        except CancelledJobError as error:  # by /interrupt
            if service.scheduler.ending:
                raise
            job, files = error.job, []
        images = [base64.b64encode(file).decode() for file in files] if asked.send_images else []
        info = json.dumps(_info(service, job, len(files)))
        parameters = asked.model_dump(include=set(WebUiRequest.model_fields))
        return WebUiImages(images=images, parameters=parameters, info=info)

    @routes.get("/progress")
    async def progress(skip_current_image: bool = False) -> WebUiProgress:
        """The progress of the oldest running job."""
        job = next(iter(under_way), None)
        return WebUiProgress(
            progress=0.0 if job is None else round(job.progress, 4),
            eta_relative=0.0 if job is None else _eta(job),
            state=_state(job),
        )

    @routes.post("/interrupt")
    async def interrupt() -> dict[str, Any]:
        """Cancel the oldest running job."""
        job = next(iter(under_way), None)
        if job is not None:
            service.scheduler.cancel(job)
        return {}

    return routes


def _image_request(service: Service, asked: WebUiRequest) -> ImageRequest:
    """The image request that a body asks for.

    Raises:
        BadRequestError: it cannot be drawn.
        NotFoundError: it names another model.
    """
    check_request(service, (asked.prompt, asked.negative_prompt), asked.model_extra)
    height, width = service.sizes[0]
    return service.asked(
        asked.prompt,
        asked.batch_size * asked.n_iter,
        Format(),
        size=f"{asked.width or width}x{asked.height or height}",
        seed=None if asked.seed == RANDOM else asked.seed,
        steps=asked.steps,
        guidance_scale=asked.cfg_scale,
        negative_prompt=asked.negative_prompt,
    )


def _info(service: Service, job: Job, count: int) -> dict[str, Any]:
    """The web UI's info text for the first `count` images of a job."""
    kind, seeds = job.asked.kind, [image.seed for image in job.images[:count]]
    made = [_made(service, job, seed) for seed in seeds]
    usual = _made(service, job, job.asked.seed)
    return {
        "prompt": job.asked.prompt,
        "all_prompts": [job.asked.prompt] * count,
        "negative_prompt": kind.negative_prompt,
        "all_negative_prompts": [kind.negative_prompt] * count,
        "seed": job.asked.seed,
        "all_seeds": seeds,
        "width": kind.width,
        "height": kind.height,
        "sampler_name": usual.sampler.name,
        "cfg_scale": kind.guidance_scale,
        "steps": kind.steps,
        "batch_size": count,
        "sd_model_name": service.name,
        "sd_model_hash": usual.model_hash[:SHORT_HASH],
        "infotexts": [one.infotext() for one in made],
        "index_of_first_image": 0,
        "styles": [],
        "subseed": job.asked.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.created)),
        "comments": "\n".join(job.asked.warnings),
        "version": program_version(),
    }


def _made(service: Service, job: Job, seed: int) -> GenerationParameters:
    return parameters_of(service.worker, job.asked, seed)


def _state(job: Job | None) -> dict[str, Any]:
    stamp = "0" if job is None else time.strftime("%Y%m%d%H%M%S", time.localtime(job.created))
    return {
        "skipped": False,
        "interrupted": False,
        "job": "" if job is None else "txt2img",
        "job_count": 0 if job is None else len(job.images),
        "job_timestamp": stamp,
        "job_no": 0 if job is None else job.made,
        "sampling_step": 0 if job is None else job.step,
        "sampling_steps": 0 if job is None else job.steps,
    }


def _eta(job: Job) -> float:
    """Estimated seconds until the job is done."""
    if not job.progress:
        return 0.0
    return round((time.time() - job.created) * (1 / job.progress - 1), 2)
