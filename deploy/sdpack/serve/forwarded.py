"""The X-Forwarded headers of reverse proxies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sdpack.serve.addresses import HOST, PATH_PREFIX, TRUSTED

ARRIVED_HOST = "sdpack.host"
"""Key in a scope: the Host header as it arrived, if a proxy sent another host."""


class Forwarded(ProxyHeadersMiddleware):
    """Applies the X-Forwarded headers of trusted proxies to a request.

    Uvicorn's class reads X-Forwarded-For and X-Forwarded-Proto. This adds X-Forwarded-Host, the
    host that clients use, and X-Forwarded-Prefix, a path prefix that the proxy has removed. Values
    that are not a host or a path are ignored.

    Args:
        trusted: addresses and networks of proxies; other clients' headers are ignored.
        root_path: the prefix if no proxy sends one. Requests may arrive with or without it.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[str] = TRUSTED, root_path: str = "") -> None:
        super().__init__(app, list(trusted))  # type: ignore[arg-type]
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] == "http":
            scope = self._with_forwarded(scope)
        await super().__call__(scope, receive, send)  # type: ignore[arg-type]

    def _with_forwarded(self, scope: Scope) -> Scope:
        root_path, headers, more = self._root_path, scope["headers"], dict[str, Any]()
        client = scope.get("client")
        if client and client[0] in self.trusted_hosts:
            root_path = _prefix(_value(headers, b"x-forwarded-prefix")) or root_path
            host = _value(headers, b"x-forwarded-host").partition(",")[0].strip()
            if HOST.fullmatch(host):
                more[ARRIVED_HOST] = _value(headers, b"host")
                others = [(name, value) for name, value in headers if name != b"host"]
                headers = [(b"host", host.encode("latin-1")), *others]
        path = _within(root_path, scope["path"])
        return {**scope, **more, "headers": headers, "root_path": root_path, "path": path}


def route_path(scope: Scope) -> str:
    """A request's path without the server's path prefix."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path


def _within(root_path: str, path: str) -> str:
    """A path with the prefix in front exactly once; the prefix alone becomes its root."""
    if path == root_path:
        return f"{root_path}/" if root_path else path
    return path if path.startswith(f"{root_path}/") else root_path + path


def _prefix(text: str) -> str | None:
    """The prefix of one proxy, or of several, the outermost first."""
    named = "".join(part.strip().rstrip("/") for part in text.split(","))
    return named if PATH_PREFIX.fullmatch(named) else None


def _value(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> str:
    """A header's value; repeated headers are joined by commas (RFC 9110)."""
    return ", ".join(value.decode("latin-1") for name, value in headers if name == wanted)
