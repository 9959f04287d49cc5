"""Parsers of the origins, hosts, prefixes and proxies that an operator gives."""

from __future__ import annotations

import ipaddress
import re

from sdpack.errors import InputError

TRUSTED = ("127.0.0.1", "::1")
"""Addresses of reverse proxies that are trusted by default: this machine."""
DEFAULT_PORTS = {"http": "80", "https": "443"}
PATH_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~@:+-]+)+")
"""A path of plain segments without a trailing slash."""
HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_ORIGIN_PATTERN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s@:]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?")


def parse_origin(text: str) -> str:
    """A web origin as browsers send it: scheme, host, and the port if it is not the default.

    Raises:
        InputError: it is not an origin, or it is "*".
    """
    if text == "null":  # what pages from files send
        return text
    match = _ORIGIN_PATTERN.fullmatch(text.strip().lower().removesuffix("/"))
    if match is None or match[2] == "*":
        raise InputError(
            f"--cors-origin {text!r} is not a web origin; write its scheme and host, such as "
            "https://app.example or http://localhost:3000"
        )
    scheme, host, port = match.groups()
    usual = port is None or DEFAULT_PORTS.get(scheme) == port
    return f"{scheme}://{host}" if usual else f"{scheme}://{host}:{port}"


def parse_host(text: str) -> str:
    """A host name in lower case, without a port.

    Raises:
        InputError: it is not a host name.
    """
    match = HOST.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"--allowed-host {text!r} is not a host; write its name alone, such as images.example"
        )
    return match[1].strip("[]").lower()


def parse_root_path(text: str) -> str:
    """A path prefix with a leading and without a trailing slash; "" for none.

    Raises:
        InputError: it is not a plain path.
    """
    trimmed = text.strip().rstrip("/")
    prefix = trimmed if trimmed.startswith("/") or not trimmed else f"/{trimmed}"
    if prefix and PATH_PREFIX.fullmatch(prefix) is None:
        raise InputError(
            f"--root-path {text!r} is not a path; write the prefix clients use, such as /images"
        )
    return prefix


def parse_proxies(text: str) -> tuple[str, ...]:
    """Addresses and networks of proxies, separated by commas; "*" stands for any.

    Raises:
        InputError: one of them is neither an address nor a network.
    """
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if names == ("*",):
        return names
    for name in names:
        try:
            ipaddress.ip_network(name)
        except ValueError as cause:
            raise InputError(
                f"--forwarded-allow-ips {name!r} is neither an address nor a network ({cause}); "
                "write some, such as 10.0.0.7 or 10.0.0.0/8, separated by commas, or *"
            ) from cause
    return names
