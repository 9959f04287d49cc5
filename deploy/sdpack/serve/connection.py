"""One client's connection: uvicorn's, with an end for those that send or read nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("sdpack.serve")
HEAD_S = 20.0  # for a request's line and headers to arrive, from when the last was answered
STALLED_S = 30.0  # without reading a byte of what waits for it
LEAST_BYTES = 64 * 2**10  # that are read in that time
UNREAD_BYTES = 256 * 2**20  # that wait for all clients together
CONNECTIONS = 4096  # beyond which new ones are closed
OTHERS = 256  # descriptors that are kept for all else


def most_connections() -> int:
    """How many there can be, once as many descriptors are allowed as this process may have."""
    try:
        import resource
    except ImportError:  # not a Unix
        return CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OTHERS
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    return CONNECTIONS if soft == resource.RLIM_INFINITY else min(CONNECTIONS, soft - OTHERS)


class Connection(H11Protocol):
    """Closes itself where a client is silent before its request, or does not read its answer.

    Uvicorn alone waits for both without end, and keeps what is not read in memory.
    """

    head_s: ClassVar[float] = HEAD_S
    stalled_s: ClassVar[float] = STALLED_S
    unread_bytes: ClassVar[int] = UNREAD_BYTES
    most: ClassVar[int] = CONNECTIONS
    _unread: ClassVar[dict[Connection, None]] = {}  # the longest first

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
        """Called when nothing was asked for long: whoever still reads the last answer may."""
        if self._stall is None:
            self.transport.abort()
        else:
            self._expect_a_request()

    def pause_writing(self) -> None:
        """Called by the transport when much waits to be read."""
        self.flow.pause_writing()
        self._unread[self] = None
        self._watch()
        waiting = {one: one.transport.get_write_buffer_size() for one in self._unread}
        # Those that have read nothing yet, then the others, each the longest first.
        for one in sorted(waiting, key=lambda one: waiting[one] < one._waiting):
            if sum(waiting.values()) <= self.unread_bytes:
                break
            held = waiting.pop(one)
            one.transport.abort()
            log.warning("a client did not read its response, %d bytes, and was disconnected", held)

    def resume_writing(self) -> None:
        """Called by the transport when it was read."""
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
        """What is no HTTP, told in the shape of all other errors."""
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
            pass  # an answer is on its way already; whatever follows it is nobody's request
        self.transport.close()
