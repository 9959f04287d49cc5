"""Installed versions, read from package metadata without importing the packages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version(name: str) -> str | None:
    """Return a package's version, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages; "-" for one that is not installed."""
    return {name: installed_version(name) or "-" for name in names}


__version__ = installed_version("sdpack") or "unknown"
