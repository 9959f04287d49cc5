"""A server that finishes the accepted requests before it shuts down."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from sdpack.documents.manifest import Manifest
from sdpack.domain.precision import Runtime
from sdpack.errors import SdpackError
from sdpack.serve.app import Settings, application, service_of
from sdpack.serve.connection import UNREAD_BYTES, Connection, most_connections
from sdpack.serve.limits import UNREAD_SHARE
from sdpack.serve.service import Service, tightness

log = logging.getLogger("sdpack.serve")
KEPT_ALIVE_S = 20
BACKLOG = 512
HAND_OUT_S = 30  # for clients to read the last responses
HEAD_BYTES = 64 * 2**10  # of a request's line and headers
POLL_INTERVAL_S = 0.1


class ListenError(SdpackError):
    """The address is in use, or does not belong to this machine."""


class Server(uvicorn.Server):
    """Uvicorn with a graceful shutdown: it accepts no new requests and finishes the accepted ones.

    A second signal ends it at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        listening: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._listening = listening
        self._ending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            self._listening(self.url)

    @property
    def url(self) -> str:
        """The URL it listens on."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called on a signal."""
        scheduler = self._service.scheduler
        if self._loop is None or scheduler.ending:
            self._loop and self._loop.call_soon_threadsafe(scheduler.abandon)
            self.should_exit = self.force_exit = True
            return
        scheduler.ending = True
        log.info("shutting down; accepted requests are finished first")
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._ending = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        service = self._service
        if service.ready:
            await service.scheduler.drain()
        until = time.monotonic() + service.limits.linger_s
        while service.jobs.unfetched and time.monotonic() < until:
            await asyncio.sleep(POLL_INTERVAL_S)
        self.should_exit = True


def serve(
    folder: Path,
    manifest: Manifest,
    runtime: Runtime,
    settings: Settings,
    listen: tuple[str, int],
    say: Callable[[str], None],
) -> None:
    """Serve an opened bundle until a signal ends the server.

    Args:
        listen: host and port; port 0 takes a free one.
        say: called with a line when it listens, and when it is ready.

    Raises:
        SdpackError: the engines cannot be loaded, or an image is broken.
        ListenError: it cannot listen on the address.
    """
    _check_free(*listen)
    host_bytes = manifest.profile.host_memory
    settings = replace(settings, limits=settings.limits.within(host_bytes))
    Connection.unread_bytes = min(UNREAD_BYTES, host_bytes // UNREAD_SHARE)
    Connection.most = most_connections()
    service = service_of(folder, manifest, runtime, settings)
    server: Server | None = None

    def failed() -> None:
        assert server is not None
        server.should_exit = True

    def listening(url: str) -> None:
        say(f"{service.name} at {url}: loading the engines")

    def ready() -> None:
        say(f"{service.name} is ready")

    # Any client can trigger uvicorn's warnings with a few bytes.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    if (tight := tightness(manifest, runtime, settings.batch)) is not None:
        say(tight)
    app = application(service, settings, ready, failed)
    server = Server(config_of(app, *listen), service, listening)
    server.run()
    if service.failed is not None:
        raise service.failed


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as cause:
        raise ListenError(
            f"cannot listen on {host}:{port} ({cause.strerror or cause}); choose another "
            "--port or --host"
        ) from cause


def config_of(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    """Uvicorn's configuration for an application; port 0 takes a free one."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application reads them itself, see forwarded.py
        backlog=BACKLOG,
        timeout_keep_alive=KEPT_ALIVE_S,
        h11_max_incomplete_event_size=HEAD_BYTES,
        http=Connection,
        timeout_graceful_shutdown=HAND_OUT_S,
        ws="none",
    )
