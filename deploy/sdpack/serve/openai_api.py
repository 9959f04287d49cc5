"""OpenAI's images API, over a bundle."""

from __future__ import annotations

import base64
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from sdpack.documents.profile import format_size
from sdpack.runtime.pictures import Encoding, Format
from sdpack.serve.answers import ERRORS, NotFoundError
from sdpack.serve.schemas import (
    Generation,
    GenerationRequest,
    ImageData,
    JobRequest,
    ModelData,
    ModelList,
)
from sdpack.serve.service import BadRequestError, Service
from sdpack.serve.waiting import drawn
from sdpack.serve.work import ImageRequest, Job

IMAGE_PATH = "/v1/images/{job}/{number}"


def openai_routes(service: Service, embeddable: bool = False) -> APIRouter:
    """The routes under /v1 that OpenAI's clients use.

    Args:
        embeddable: pages of other origins may embed images by their URLs. A browser does not say
            which page an `<img>` is on, so the header allows every page; the random name of a job
            keeps its images secret.
    """
    policy = {"cross-origin-resource-policy": "cross-origin"} if embeddable else {}
    routes = APIRouter(tags=["OpenAI"], responses=_but(404))

    @routes.post("/v1/images/generations", responses={404: ERRORS[404]})
    async def generate(asked: GenerationRequest, request: Request) -> Generation:
        """Draw images, and answer when they are finished."""
        wanted = image_request(service, asked)
        later = asked.response_format == "url"
        job, files = await drawn(service, request, wanted, keep=later)
        kind = job.asked.kind
        return Generation(
            created=int(job.created),
            data=[
                image_data(request, job, number)
                if later
                else ImageData(
                    b64_json=base64.b64encode(file).decode(),
                    revised_prompt=job.asked.read,
                    seed=job.images[number].seed,
                )
                for number, file in enumerate(files)
            ],
            output_format=job.encoding,
            size=format_size((kind.height, kind.width)),
            warnings=list(job.asked.warnings),
        )

    @routes.get("/v1/models")
    async def models() -> ModelList:
        """The one model, under each of its names."""
        return ModelList(data=[_model(service, name) for name in service.names])

    @routes.get("/v1/models/{name:path}", responses={404: ERRORS[404]})
    async def model(name: str) -> ModelData:
        """The model, by one of its names."""
        check_served(service, name)
        return _model(service, name)

    @routes.get(
        IMAGE_PATH,
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}, 404: ERRORS[404]},
    )
    async def image(job: str, number: int) -> Response:
        """A finished image of a job."""
        found = service.jobs.find(job)
        if found is None or not 0 <= number < len(found.images):
            raise NotFoundError("there is no such picture, or it has expired")
        file = found.images[number].encoded
        if file is None and found.status.ended:
            raise NotFoundError(f"the job of this picture did not finish: {found.status.value}")
        if file is None:
            raise NotFoundError("this picture is not finished yet")
        found.images[number].fetched = True
        return Response(file, media_type=found.encoding.media_type, headers=policy)

    return routes


def _but(*left_out: int) -> dict[int | str, dict[str, Any]]:
    return {status: error for status, error in ERRORS.items() if status not in left_out}


def image_request(service: Service, asked: JobRequest) -> ImageRequest:
    """The image request that a body asks for.

    Raises:
        BadRequestError: it cannot be drawn, or not in that format.
        NotFoundError: it names another model.
    """
    if asked.model is not None:
        check_served(service, asked.model)
    if asked.output_format is Encoding.PNG and asked.output_compression not in (None, 100):
        raise BadRequestError(
            "output_compression", "png is lossless and takes only 100; use jpeg or webp"
        )
    return service.asked(
        asked.prompt,
        1 if asked.n is None else asked.n,
        Format(asked.output_format, asked.output_compression),
        size=asked.size,
        seed=asked.seed,
        steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        negative_prompt=asked.negative_prompt,
    )


def check_served(service: Service, name: str) -> None:
    """Raises NotFoundError for a name that is neither the bundle's nor one of its aliases."""
    if name not in service.names:
        shown = name[:80]
        known = ", ".join(map(repr, service.names))
        raise NotFoundError(
            f"there is no model {shown!r} here, only {known}; omit `model`, or start the "
            "server with --model-alias to accept another name",
            "model_not_found",
        )


def _model(service: Service, name: str) -> ModelData:
    return ModelData(id=name, created=int(service.started))


def image_data(request: Request, job: Job, number: int) -> ImageData:
    """The URL of an image, which works for as long as the image is kept."""
    path = IMAGE_PATH.format(job=job.id, number=number)
    url = str(request.base_url).rstrip("/") + path
    return ImageData(url=url, revised_prompt=job.asked.read, seed=job.images[number].seed)
