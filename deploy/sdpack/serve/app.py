"""The application: the routes and middleware of one served bundle, and its lifespan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi

from sdpack.documents.manifest import Manifest
from sdpack.documents.profile import format_size
from sdpack.domain.precision import Runtime
from sdpack.engines.device_memory import used_bytes
from sdpack.errors import EngineError, SdpackError
from sdpack.runtime.bundle import has_room
from sdpack.runtime.pipeline import LARGEST_SEED
from sdpack.serve.addresses import TRUSTED
from sdpack.serve.answers import add_answers
from sdpack.serve.forwarded import Forwarded
from sdpack.serve.inference_worker import InferenceWorker
from sdpack.serve.jobs import Jobs
from sdpack.serve.jobs_api import job_routes
from sdpack.serve.limits import Limits
from sdpack.serve.metrics import Metrics
from sdpack.serve.openai_api import openai_routes
from sdpack.serve.request_model import values_of
from sdpack.serve.scheduler import Scheduler
from sdpack.serve.security import BodyLimit, Crowd, Dressed, Guard, KnownHosts, OwnPages
from sdpack.serve.service import OWN_BYTES, Service
from sdpack.serve.status_api import status_routes
from sdpack.serve.webui_about import PNG_INFO, PNG_INFO_BYTES
from sdpack.serve.webui_api import webui_routes

log = logging.getLogger("sdpack.serve")


@dataclass(frozen=True)
class Settings:
    """How a bundle is served.

    Attributes:
        keys: API keys; without any, every client is let in.
        origins: other web origins whose pages may call the server.
        hosts: Host headers to accept, in addition to IP addresses and localhost, if no
            keys are set.
        proxies: addresses and networks of reverse proxies whose X-Forwarded headers are trusted.
        root_path: the path prefix of the server's URLs, if no proxy sends it.
        aliases: additional model names that clients may use.
        batch: the most images drawn together; None: the bundle's.
        threads: number of CPU threads; None means all cores.
        least_memory: release memory immediately, even if the budget leaves room to keep it.
    """

    limits: Limits = field(default_factory=Limits)
    keys: Sequence[str] = ()
    origins: Sequence[str] = ()
    hosts: Sequence[str] = ()
    proxies: Sequence[str] = TRUSTED
    root_path: str = ""
    aliases: Sequence[str] = ()
    batch: int | None = None
    threads: int | None = None
    least_memory: bool = False


def service_of(folder: Path, manifest: Manifest, runtime: Runtime, settings: Settings) -> Service:
    """An opened bundle as a service; its engines are not loaded yet."""
    batch = settings.batch or manifest.sampling.batch
    device = used_bytes if runtime.on_gpu else None
    metrics = Metrics(batch, manifest.memory.budget_bytes, device)
    own = 0 if runtime.on_gpu else OWN_BYTES  # on a GPU the budget is of its own memory
    low_memory = settings.least_memory or not has_room(manifest, runtime, own)
    worker = InferenceWorker(folder, manifest, runtime, settings.threads, metrics.stage, low_memory)
    scheduler = Scheduler(worker, batch, settings.limits, metrics)
    return Service(
        manifest,
        worker,
        settings.limits,
        metrics,
        scheduler,
        Jobs(settings.limits),
        settings.aliases,
    )


def application(
    service: Service,
    settings: Settings,
    ready: Callable[[], None] = lambda: None,
    failed: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application that serves a bundle; the engines are loaded once it starts.

    Args:
        ready: called once they are loaded and have drawn an image.
        failed: called if they cannot be loaded, or stop working.
    """
    app = FastAPI(
        title="sdpack",
        description=f"Pictures from the bundle {service.name}.",
        lifespan=lambda _: _lifespan(service, ready, failed),
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    service.metrics.ready(lambda: service.ready and not service.scheduler.ending)
    add_answers(app)
    for routes in (job_routes, webui_routes, status_routes):
        app.include_router(routes(service))
    app.include_router(openai_routes(service, embeddable=bool(settings.origins)))
    _describe(app, service)
    _add_middleware(app, service, settings)
    return app


@asynccontextmanager
async def _lifespan(
    service: Service, ready: Callable[[], None], failed: Callable[[], None]
) -> AsyncIterator[None]:
    """Load the engines and draw until the application ends; then free the engines."""
    loading = asyncio.create_task(_load(service, ready, failed))
    drawing = asyncio.create_task(service.scheduler.run())
    drawing.add_done_callback(lambda task: _end(service, task, failed))
    try:
        yield
    finally:
        for task in (loading, drawing):
            task.cancel()
            with suppress(asyncio.CancelledError, SdpackError):
                await task
        await asyncio.to_thread(service.scheduler.close)


def _add_middleware(app: FastAPI, service: Service, settings: Settings) -> None:
    """Add the middleware, the innermost first."""
    limits = settings.limits
    app.add_middleware(
        BodyLimit,
        most_bytes=limits.body_bytes,
        read_s=limits.read_s,
        larger={PNG_INFO: PNG_INFO_BYTES},
    )
    app.add_middleware(Guard, keys=list(settings.keys), open_images=bool(settings.origins))
    app.add_middleware(OwnPages, origins=list(settings.origins))
    app.add_middleware(Crowd, most=limits.requests)
    if not settings.keys:
        app.add_middleware(KnownHosts, names=list(settings.hosts))
    if settings.origins:
        # Outside the middleware that rejects requests, so that pages can read the reason.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],  # OpenAI's client alone sends a dozen of its own
            expose_headers=["location", "retry-after"],
            allow_private_network=True,
        )
    app.add_middleware(Dressed, metrics=service.metrics)
    app.add_middleware(Forwarded, trusted=settings.proxies, root_path=settings.root_path)


async def _load(service: Service, ready: Callable[[], None], failed: Callable[[], None]) -> None:
    try:
        await service.scheduler.load()
    except Exception as error:  # a loader may raise anything
        log.error("%s cannot be served", service.name, exc_info=error)
        service.failed = (
            error
            if isinstance(error, SdpackError)
            else EngineError(f"{service.name} cannot be loaded: {error}")
        )
        failed()
        return
    service.ready = True
    ready()


def _end(service: Service, drawing: asyncio.Task[None], failed: Callable[[], None]) -> None:
    """Record why drawing ended, unless it was cancelled."""
    if drawing.cancelled():
        return
    error = drawing.exception()
    log.error("%s can no longer be served", service.name, exc_info=error)
    service.failed = error if isinstance(error, SdpackError) else EngineError(str(error))
    failed()


def _describe(app: FastAPI, service: Service) -> None:
    """Have the OpenAPI document describe the errors and the values that this server knows."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title, version="1", description=app.description, routes=app.routes
            )
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(name, None)
            _narrow(found["components"]["schemas"], service)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _narrow(schemas: dict[str, Any], service: Service) -> None:
    """Restrict the schemas of requests to what this bundle and this server accept."""
    texts, most = service.limits.prompt, service.most_images

    def narrow(name: str, field: str, **restrictions: Any) -> None:
        values_of(schemas[name]["properties"][field]).update(restrictions)

    for name in ("JobRequest", "GenerationRequest"):
        narrow(name, "n", maximum=most)
        narrow(name, "seed", maximum=LARGEST_SEED - most)
        narrow(name, "model", enum=list(service.names))
        narrow(name, "size", enum=["auto", *map(format_size, service.sizes)])
    for name in ("JobRequest", "GenerationRequest", "WebUiRequest"):
        narrow(name, "prompt", maxLength=texts)
        narrow(name, "negative_prompt", maxLength=texts)
        narrow(name, "steps", enum=service.steps)
