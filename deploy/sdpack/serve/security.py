"""Middleware between the network and the application: keys, limits, headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import logging
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sdpack.errors import InputError
from sdpack.serve.addresses import DEFAULT_PORTS
from sdpack.serve.answers import answer
from sdpack.serve.forwarded import ARRIVED_HOST, route_path
from sdpack.serve.metrics import Metrics

log = logging.getLogger("sdpack.serve")
HEALTH_PATHS = ("/healthz", "/readyz")
"""Paths that load balancers query."""
OPEN_TO_ALL = ("/", *HEALTH_PATHS)
"""Paths that need no key: those, and the page that asks for one."""
IMAGE_URL = re.compile(r"/v1/images/[A-Za-z0-9_-]+/[0-9]+")
LEAST_KEY = 16  # characters
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
CSP = b"content-security-policy"
STRICT_CSP = b"default-src 'none'; frame-ancestors 'none'"  # of responses that load nothing


class KeyFileError(InputError):
    """The file of API keys cannot be used."""


def read_keys(path: Path) -> list[str]:
    """The keys in a file, one per line; empty lines and lines that begin with # are skipped.

    Raises:
        KeyFileError: it cannot be read, holds no key, or a key that is too short.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise KeyFileError(f"--api-key-file {path} cannot be read ({cause})") from cause
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not keys:
        raise KeyFileError(f"--api-key-file {path} holds no key; write one per line")
    for number, key in enumerate(keys, start=1):
        if len(key) < LEAST_KEY or not key.isascii() or not key.isprintable():
            raise KeyFileError(
                f"--api-key-file {path}: key {number} is shorter than {LEAST_KEY} characters or "
                "not plain ASCII; make one with: openssl rand -hex 32"
            )
    return keys


class Guard:
    """Rejects requests without a valid API key, if there are keys.

    The digests of all keys are compared each time, so that the time taken reveals nothing.

    Args:
        open_images: an image's URL needs no key. A browser sends none for an `<img>`; the secret
            is then the random name of the job (144 bits).
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_images: bool = False) -> None:
        self._app = app
        self._open_images = open_images
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._refuses(scope):
            await refuse(
                send,
                401,
                "an API key is required: send it as `Authorization: Bearer KEY`",
                "authentication_error",
                "invalid_api_key",
                [(b"www-authenticate", b"Bearer")],
            )
            return
        await self._app(scope, receive, send)

    def _refuses(self, scope: Scope) -> bool:
        if not self._digests or route_path(scope) in OPEN_TO_ALL:
            return False
        if scope["method"] == "OPTIONS":
            return False
        if (
            self._open_images
            and scope["method"] == "GET"
            and IMAGE_URL.fullmatch(route_path(scope))
        ):
            return False
        given = _digest(_given(dict(scope["headers"])))
        known = [hmac.compare_digest(given, digest) for digest in self._digests]
        return not any(known)


def _given(headers: dict[bytes, bytes]) -> bytes:
    kind, _, key = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer":
        return key.strip()
    if kind.lower() == b"basic":  # NAME:KEY, as front ends of the web UI send it
        try:
            return base64.b64decode(key, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return headers.get(b"x-api-key", b"")


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


class BodyLimit:
    """Rejects requests that are too large or take too long to arrive.

    Args:
        larger: higher limits in bytes, by path. Only one such request is handled at a time, which
            bounds the memory they take.
    """

    def __init__(
        self,
        app: ASGIApp,
        most_bytes: int,
        read_s: float,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._most = most_bytes
        self._read_s = read_s
        self._larger = larger or {}
        self._one_is_larger = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        declared_bytes = int(declared) if declared.isdigit() else 0
        if declared_bytes <= self._most:
            await self._answer(scope, receive, send, self._most)
            return
        most = self._larger.get(route_path(scope), self._most)
        if declared_bytes > most:
            await self._too_large(send, most)
        elif self._one_is_larger:
            words = "another large request is being answered; try again in 1 s"
            again = [(b"retry-after", b"1")]
            await refuse(send, 503, words, "server_error", "unavailable", again)
        else:
            self._one_is_larger = True
            try:
                await self._answer(scope, receive, send, most)
            finally:
                self._one_is_larger = False

    async def _answer(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        try:
            async with asyncio.timeout(self._read_s):
                messages = await self._read(receive, most)
        except TimeoutError:
            await refuse(send, 408, f"the request took longer than {self._read_s:g} s to arrive")
            return
        if messages is None:
            await self._too_large(send, most)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)

    async def _read(self, receive: Receive, most: int) -> list[Message] | None:
        """The whole request; None if it is too large."""
        messages, taken = [], 0
        while True:
            message = await receive()
            messages.append(message)
            taken += len(message.get("body", b""))
            if taken > most:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return messages

    async def _too_large(self, send: Send, most: int) -> None:
        await refuse(send, 413, f"the request is larger than {most} bytes")


class Dressed:
    """Adds the headers that every response has, and counts responses."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                named = {name.lower() for name, _ in headers}
                more = [*HEADERS, (CSP, STRICT_CSP), (b"cache-control", b"no-store")]
                headers += [(name, value) for name, value in more if name not in named]
                message = {**message, "headers": headers}
                begun = True
                self._metrics.answered(message["status"])
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, dressed)
        except Exception as error:  # a bug: reported like all errors, and counted
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            if not begun:
                await answer(error)(scope, receive, dressed)


async def refuse(
    send: Send,
    status: int,
    message: str,
    kind: str = "invalid_request_error",
    code: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send an error in OpenAI's shape, without the application."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    body = json.dumps({"error": error}).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    closing = [(b"connection", b"close")] if status in (408, 413) else []
    await send(
        {"type": "http.response.start", "status": status, "headers": [*own, *closing, *headers]}
    )
    await send({"type": "http.response.body", "body": body})


class KnownHosts:
    """Accepts only Host headers with an address or a known name (against DNS rebinding).

    Otherwise any web page could point its own name at this machine and read the server's responses
    in a visitor's browser. Paths that load balancers query accept any Host. If a proxy sends
    X-Forwarded-Host, both that and the proxy's own Host must be known, because a page could send
    the header too.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset((*(name.lower() for name in names), "localhost"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and route_path(scope) not in HEALTH_PATHS:
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            names = {host_name(host), host_name(scope.get(ARRIVED_HOST, host))}
            if not all(name in self._names or _is_address(name) for name in names):
                await refuse(
                    send,
                    421,
                    "this server does not accept that Host; start it with --allowed-host to add "
                    "it, or with --api-key-file",
                    code="unknown_host",
                )
                return
        await self._app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class OwnPages:
    """Rejects requests that change something from pages of unknown origins (against CSRF).

    A browser sends a page's requests to any server, and names the page's origin in a header.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            headers = dict(scope["headers"])
            origin = headers.get(b"origin", b"").decode("latin-1")
            if origin and origin not in self._origins and not _is_own(origin, headers):
                await refuse(
                    send,
                    403,
                    "pages of other origins may not call this server; start it with --cors-origin "
                    "to allow one, or have a reverse proxy in front send X-Forwarded-Host",
                    code="unknown_origin",
                )
                return
        await self._app(scope, receive, send)


def _is_own(origin: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether an origin is this server, by the Host header."""
    scheme, _, authority = origin.partition("://")
    host = headers.get(b"host", b"").decode("latin-1")
    return authority == host.removesuffix(f":{DEFAULT_PORTS.get(scheme)}")


class Crowd:
    """Limits the requests handled at once; paths that load balancers query are exempt."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._here = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in HEALTH_PATHS:
            await self._app(scope, receive, send)
            return
        if self._here >= self._most:
            words = f"{self._here} requests are being answered, the most this server accepts"
            again = [(b"retry-after", b"1")]
            await refuse(send, 503, words, "server_error", "unavailable", again)
            return
        self._here += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._here -= 1


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
