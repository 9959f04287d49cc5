"""Which versions are installed, by the packages' own metadata: nothing is imported for it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(name: str) -> str | None:
    """Of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


__version__ = installed_version("sdpack") or "unknown"
