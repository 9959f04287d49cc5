"""The status of the server, for load balancers, monitors and people."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from sdpack.documents.profile import format_size
from sdpack.domain.licences import licence_figures
from sdpack.runtime.pictures import Encoding
from sdpack.serve.answers import ERRORS
from sdpack.serve.metrics import CONTENT_TYPE
from sdpack.serve.page import page, page_policy
from sdpack.serve.service import Service


def status_routes(service: Service) -> APIRouter:
    """The playground and the routes that report the server's status."""
    routes = APIRouter(tags=["status"])

    @routes.get("/", response_class=Response, include_in_schema=False)
    async def playground() -> Response:
        """The playground."""
        return Response(
            page(), media_type="text/html", headers={"content-security-policy": page_policy()}
        )

    @routes.get("/healthz", responses={503: {"description": "Stuck: restart it"}})
    async def healthz() -> Response:
        """Whether the server answers and its worker is not stuck."""
        if service.scheduler.stuck:
            return JSONResponse({"status": "stuck"}, 503)
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", responses={503: {"description": "Not ready, or shutting down"}})
    async def readyz() -> Response:
        """Whether images can be drawn: the engines are loaded and have drawn one."""
        if service.failed is not None:
            return JSONResponse({"status": "failed", "reason": str(service.failed)}, 503)
        if service.scheduler.ending:
            return JSONResponse({"status": "ending"}, 503)
        if not service.ready:
            return JSONResponse({"status": "loading"}, 503)
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics", response_class=Response, responses={401: ERRORS[401]})
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE)

    @routes.get("/capabilities", responses={401: ERRORS[401]})
    async def capabilities() -> dict[str, Any]:
        """What the server draws, with which mix, and the evidence for it."""
        return described(service)

    return routes


def described(service: Service) -> dict[str, Any]:
    """The server's capabilities, as JSON values."""
    manifest, limits = service.manifest, service.limits
    sampling, evidence = manifest.sampling, manifest.evidence
    return {
        "model": service.name,
        "sizes": [format_size(size) for size in service.sizes],
        "steps": {"usual": sampling.steps, "choices": service.steps},
        "guidance_scale": sampling.guidance_scale,
        "negative_prompt": sampling.negative_prompt,
        "batch": service.scheduler.batch,
        "formats": [encoding.value for encoding in Encoding],
        "limits": {
            "pictures": service.most_images,
            "prompt": limits.prompt,
            "queue": limits.queue,
            "timeout_s": limits.timeout_s,
        },
        "profile": manifest.profile.name,
        "mix": {
            role.value: {
                "candidate": part.candidate,
                "precision": part.precision.value,
                "parameters": part.parameters,
                "licence": part.licence,
                "source": part.source,
                "bridge": None if part.bridge is None else part.bridge.model_dump(),
                "loras": None if part.loras is None else [x.model_dump() for x in part.loras],
            }
            for role, part in manifest.parts.items()
        },
        "licences": licence_figures(manifest.licensed_parts),
        "placement": str(manifest.placement),
        "memory": manifest.memory.model_dump(mode="json"),
        "evidence": {
            "metric": evidence.metric,
            "measured_on": evidence.measured_on,
            "quality": evidence.quality.model_dump(mode="json"),
            "kid": None if evidence.kid is None else evidence.kid.model_dump(mode="json"),
            "mixes": evidence.mixes,
            "pictures": evidence.pictures,
        },
    }
