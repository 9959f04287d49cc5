"""A limit on the size of the cache in front of a shared store.

Artifacts that were not used for longest are removed first, if the shared store has them too. Those
that a running process has used are kept, because it may open their files again: every process
marks what it uses.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

IN_USE = "in-use"
SLACK = 0.05  # of the limit, which may be added before all artifacts are looked through


class CachedArtifact(Protocol):
    """An artifact in the cache."""

    @property
    def folder(self) -> Path: ...
    @property
    def bytes(self) -> int: ...
    @property
    def published_at(self) -> str | None:
        """The address of the shared store that has it too."""
        ...

    @property
    def used_at(self) -> float:
        """When it was last used, in seconds."""
        ...


class CacheLimit:
    """Keeps a cache within a size.

    Args:
        folder: folder of the cache.
        most_bytes: its size.
        url: address of the shared store behind it.
    """

    def __init__(self, folder: Path, most_bytes: int, url: str) -> None:
        self._marks = folder / IN_USE
        self._most_bytes = most_bytes
        self._url = url
        self._added_bytes = float("inf")  # what earlier processes left is not known
        self._marked: set[str] = set()

    def mark(self, artifact: CachedArtifact) -> None:
        """Keep an artifact for as long as this process runs."""
        name = _name(artifact)
        if name in self._marked:
            return
        own = self._marks / str(os.getpid())
        own.mkdir(parents=True, exist_ok=True)
        (own / name).touch()
        self._marked.add(name)

    def add(self, artifact: CachedArtifact, artifacts: Iterable[CachedArtifact]) -> None:
        """Take account of a new artifact, and remove others if there is no room for it.

        Args:
            artifacts: all artifacts of the cache; looked through now and then.
        """
        self.mark(artifact)
        self._added_bytes += artifact.bytes
        if self._added_bytes > SLACK * self._most_bytes:
            self._added_bytes = 0
            self._trim(list(artifacts))

    def _trim(self, artifacts: list[CachedArtifact]) -> None:
        size, in_use = sum(each.bytes for each in artifacts), self._in_use()
        for artifact in sorted(artifacts, key=lambda each: each.used_at):
            if size <= self._most_bytes:
                break
            if artifact.published_at == self._url and _name(artifact) not in in_use:
                shutil.rmtree(artifact.folder, ignore_errors=True)
                size -= artifact.bytes

    def _in_use(self) -> set[str]:
        """The artifacts that running processes marked; marks of others are removed."""
        names: set[str] = set()
        for folder in self._marks.glob("*"):
            if is_running(folder.name):
                names.update(mark.name for mark in folder.iterdir())
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return names


def is_running(pid: str) -> bool:
    """Whether a process runs on this machine."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _name(artifact: CachedArtifact) -> str:
    return f"{artifact.folder.parent.name}-{artifact.folder.name}"
