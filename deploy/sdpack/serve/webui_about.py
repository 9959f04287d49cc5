"""The routes of AUTOMATIC1111's web UI API that describe the server: models, samplers, options."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from sdpack.engines.detect import memory_bytes
from sdpack.errors import SdpackError
from sdpack.runtime.infotext import parse_infotext
from sdpack.runtime.pictures import PARAMETERS, read_texts
from sdpack.serve.answers import ERRORS
from sdpack.serve.metrics import resident_bytes
from sdpack.serve.schemas import PromptText, WebUiModel, WebUiPngInfo, WebUiPngInfoRequest
from sdpack.serve.service import BadRequestError, Service
from sdpack.serve.webui_settings import check_settings, model_of, options_of

WEBUI_PREFIX = "/sdapi/v1"
PNG_INFO = f"{WEBUI_PREFIX}/png-info"
PNG_INFO_BYTES = 8 * 2**20  # of a request with an image in base64

EMPTY_ANSWERS: dict[str, tuple[str, Any]] = {
    "/embeddings": ("Embeddings that prompts can name: none.", {"loaded": {}, "skipped": {}}),
    "/extensions": ("Extensions: none.", []),
    "/face-restorers": ("Face restoration: none.", []),
    "/hypernetworks": ("Hypernetworks: none.", []),
    "/latent-upscale-modes": ("Latent upscale modes: none.", []),
    "/loras": ("LoRAs that prompts can name: none; a bundle's are part of its weights.", []),
    "/prompt-styles": ("Styles: none.", []),
    "/realesrgan-models": ("Upscaling models: none.", []),
    "/script-info": ("Scripts and their arguments: none.", []),
    "/scripts": ("Scripts: none.", {"txt2img": [], "img2img": []}),
    "/sd-modules": ("Text encoders and decoders to choose from: none.", []),
    "/sd-vae": ("Decoders to choose from: none.", []),
    "/upscalers": ("Upscaling models: none.", []),
}
"""Descriptions and answers of the routes for features that this server does not have."""
REFRESHED = ("checkpoints", "embeddings", "loras", "vae")


def about_routes(service: Service) -> APIRouter:
    """The routes under /sdapi/v1 that draw nothing."""
    routes = APIRouter(prefix=WEBUI_PREFIX, tags=["web UI"], responses={401: ERRORS[401]})
    _add_constants(routes)

    @routes.get("/sd-models")
    async def models() -> list[WebUiModel]:
        """The one model."""
        return [model_of(service)]

    @routes.get("/samplers")
    async def samplers() -> list[dict[str, Any]]:
        """The one sampler."""
        sampler = service.worker.sampler
        return [{"name": sampler.name, "aliases": [sampler.scheduler], "options": {}}]

    @routes.get("/schedulers")
    async def schedulers() -> list[dict[str, Any]]:
        """The schedule of the sampler's noise levels."""
        sampler = service.worker.sampler
        label = sampler.schedule
        named = {"name": label.lower(), "label": label, "aliases": None}
        return [{**named, "default_rho": -1, "need_inner_model": False}]

    @routes.get("/options")
    async def options() -> dict[str, Any]:
        """The settings that front ends read, including the title of the model."""
        return options_of(service)

    @routes.post("/options", responses={status: ERRORS[status] for status in (400, 404, 413)})
    async def set_options(wanted: dict[PromptText, Any]) -> None:
        """Accepts the current settings and rejects others, because settings cannot be changed."""
        check_settings(service, wanted)

    @routes.get("/memory")
    async def memory() -> dict[str, Any]:
        """The machine's memory and the server's share in bytes; see /metrics for a GPU's."""
        return {"ram": _ram(), "cuda": {"error": "not reported here; see /metrics"}}

    return routes


def _add_constants(routes: APIRouter) -> None:
    """Add the routes whose answer is the same for every bundle."""
    for path, (words, value) in {
        **EMPTY_ANSWERS,
        "/cmd-flags": ("The web UI's command-line flags.", {"api": True, "nowebui": True}),
    }.items():
        routes.add_api_route(path, _always(value), description=words, name=path.strip("/"))
    for what in REFRESHED:
        routes.add_api_route(
            f"/refresh-{what}",
            _always(None),
            methods=["POST"],
            name=f"refresh-{what}",
            description="Does nothing: a bundle does not change.",
        )

    @routes.post("/png-info", responses={status: ERRORS[status] for status in (400, 413, 503)})
    def png_info(asked: WebUiPngInfoRequest) -> WebUiPngInfo:
        """The parameters an image was made with, read from its file."""
        texts = read_texts(_file(asked.image))
        info = texts.pop(PARAMETERS, "")
        parameters = parse_infotext(info) if info else {}
        return WebUiPngInfo(info=info, items=texts, parameters=parameters)


def _always(value: Any) -> Callable[[], Any]:
    async def answer() -> Any:
        return value

    return answer


def _file(text: str) -> bytes:
    """The bytes of a file in base64 or in a data URL."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError) as cause:
        raise BadRequestError("image", f"is not base64 ({cause})") from cause


def _ram() -> dict[str, Any]:
    try:
        total, used = memory_bytes(), resident_bytes()
    except SdpackError as error:
        return {"error": str(error)}
    return {"free": total - used, "used": used, "total": total}
