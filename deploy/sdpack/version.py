"""Installed versions, read from package metadata without importing the packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(name: str) -> str | None:
    """Return a package's version, or None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


__version__ = installed_version("sdpack") or "unknown"
