"""A client's connection: uvicorn's, but closed if the client sends or reads nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("sdpack.serve")
HEAD_S = 20.0  # for a request's line and headers to arrive, after the last response
STALLED_S = 30.0  # in which a client must read at least LEAST_BYTES of its response
LEAST_BYTES = 64 * 2**10
UNREAD_BYTES = 256 * 2**20  # of unread responses, of all clients together
CONNECTIONS = 4096  # at most; more are closed
OTHER_DESCRIPTORS = 256  # file descriptors kept free for other uses


def most_connections() -> int:
    """The most connections possible, after raising the limit of file descriptors."""
    try:
        import resource
    except ImportError:  # not a Unix
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHER_DESCRIPTORS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return (
        CONNECTIONS
        if soft == resource.RLIM_INFINITY
        else min(CONNECTIONS, soft - OTHER_DESCRIPTORS)
    )


class Connection(H11Protocol):
    """Closes itself if a client sends no request, or does not read its response.

    Uvicorn itself waits for both without a limit, and keeps unread responses in memory.
    """

    head_s: ClassVar[float] = HEAD_S
    stalled_s: ClassVar[float] = STALLED_S
    unread_bytes: ClassVar[int] = UNREAD_BYTES
    most: ClassVar[int] = CONNECTIONS
    _unread: ClassVar[dict[Connection, None]] = {}  # in the order they stalled

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._silence: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._waiting = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._expect_a_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering and self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering:
            self._expect_a_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._silence, self._stall):
            if timer is not None:
                timer.cancel()
        self._unread.pop(self, None)
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_a_request(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._silence = self.loop.call_later(self.head_s, self._be_done)

    def _be_done(self) -> None:
        """Called when no request came: close, unless the client still reads the last response."""
        if self._stall is None:
            self.transport.abort()
        else:
            self._expect_a_request()

    def pause_writing(self) -> None:
        """Called by the transport when its buffer of unread bytes is full."""
        self.flow.pause_writing()
        self._unread[self] = None
        self._watch()
        waiting = {one: one.transport.get_write_buffer_size() for one in self._unread}
        # First those that have read nothing, then the others, each in the order they stalled.
        for one in sorted(waiting, key=lambda one: waiting[one] < one._waiting):
            if sum(waiting.values()) <= self.unread_bytes:
                break
            held = waiting.pop(one)
            one.transport.abort()
            log.warning("a client did not read its response, %d bytes, and was disconnected", held)

    def resume_writing(self) -> None:
        """Called by the transport when its buffer was read."""
        self._unread.pop(self, None)
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self.flow.resume_writing()

    def _watch(self) -> None:
        self._waiting = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.stalled_s, self._see_progress)

    def _see_progress(self) -> None:
        if self.transport.get_write_buffer_size() > self._waiting - LEAST_BYTES:
            self.transport.abort()
        else:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not valid HTTP, in the shape of all other errors."""
        error = {"message": msg, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-content-type-options", b"nosniff"),
        ]
        try:
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # a response was already begun
        self.transport.close()
