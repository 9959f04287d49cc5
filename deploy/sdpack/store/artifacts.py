"""The store: finished artifacts, keyed by their inputs.

An artifact is a folder keyed by the hash of all its inputs. It is written under a temporary name,
flushed to disk and renamed, so there are no half-written artifacts. A build that was killed finds
its finished artifacts again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from sdpack.errors import SourceError, StoreError
from sdpack.store.files import explain_io, flush_file, flush_folder
from sdpack.store.limit import CacheLimit, is_running
from sdpack.units import format_bytes

RECORD = "artifact.json"
PUBLISHED = "published"  # a file beside the record, with the address of the shared store
CACHE_VARIABLE = "SDPACK_CACHE"
REVISION = 10  # of how artifacts are made; raised when that changes, so that old ones are not used
Inputs = Mapping[str, Any]


def cache_folder() -> Path:
    """Return $SDPACK_CACHE, or ~/.cache/sdpack."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "sdpack")


def digest(inputs: Inputs) -> str:
    """Return the SHA-256 of JSON values, independent of the order of keys."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(folder: Path) -> str:
    """One hash of the files directly in a folder.

    Raises:
        SourceError: it has none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        raise SourceError(f"{folder} holds no files; restore them")
    return digest({path.name: file_sha256(path) for path in files})


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its folder, kind and inputs, and the SHA-256 of each file by name."""

    folder: Path
    kind: str
    inputs: Inputs
    files: Mapping[str, str]
    bytes: int

    @cached_property
    def content(self) -> str:
        """One hash of all files; part of the key of artifacts derived from this one."""
        return digest(self.files)

    def path(self, name: str) -> Path:
        """Return the path of one of the files."""
        return self.folder / name

    @property
    def published_at(self) -> str | None:
        """The address of the shared store that has it too; None if none has."""
        try:
            return (self.folder / PUBLISHED).read_text()
        except OSError:
            return None

    @property
    def used_at(self) -> float:
        """When it was last used, in seconds since the epoch."""
        return (self.folder / RECORD).stat().st_mtime


class Shared(Protocol):
    """Artifacts that several machines share."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    def fetch(self, kind: str, key: str, folder: Path) -> bool:
        """Fill an empty folder with an artifact; returns whether there is one."""
        ...

    def publish(self, kind: str, key: str, folder: Path) -> bool:
        """Write an artifact; returns False if another machine made a different one before."""
        ...


class Store:
    """Artifacts under one folder; safe for several processes at once.

    Args:
        shared: where artifacts are fetched from, and published, that other machines use too.
        limit: the size of the folder in front of it; None for any size.
    """

    def __init__(
        self, folder: Path, shared: Shared | None = None, limit: CacheLimit | None = None
    ) -> None:
        self.folder = folder
        self._shared = shared
        self._limit = limit

    def find(self, kind: str, inputs: Inputs) -> Artifact | None:
        """Return the finished artifact, or None; removes a damaged one and returns None.

        Raises:
            StoreError: the shared store cannot be read.
        """
        folder = self._folder(kind, inputs)
        artifact = _read_artifact(folder)
        if artifact is None:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
            return self._fetched(kind, inputs)
        with suppress(OSError):
            os.utime(folder / RECORD)
        if self._limit is not None:
            self._limit.mark(artifact)
        if self._shared is None or artifact.published_at == self._shared.url:
            return artifact
        return self._same(artifact)

    def _fetched(self, kind: str, inputs: Inputs) -> Artifact | None:
        """Fetch an artifact from the shared store."""
        if self._shared is None:
            return None
        target = self._folder(kind, inputs)
        with _explained_io(self.folder), self.scratch() as folder:
            if not self._shared.fetch(kind, digest(inputs), folder):
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / PUBLISHED).write_text(self._shared.url)
            with suppress(OSError):  # another process fetched it at the same time
                folder.rename(target)
        return self._added(_read_artifact(target))

    def _added(self, artifact: Artifact | None) -> Artifact | None:
        """Make room for a new artifact, if the size of the folder is limited."""
        if artifact is not None and self._limit is not None:
            self._limit.add(artifact, self.artifacts())
        return artifact

    def make(self, kind: str, inputs: Inputs, build: Callable[[Path], None]) -> Artifact:
        """Return the finished artifact; if it is missing, have `build` fill an empty folder.

        Raises:
            StoreError: the store cannot be written, or the disk is full.
        """
        artifact = self.find(kind, inputs)
        if artifact is not None:
            return artifact
        with _explained_io(self.folder), self._lock(kind, inputs):
            return self.find(kind, inputs) or self._make(kind, inputs, build)

    def make_together(
        self, kind: str, inputs: Sequence[Inputs], build: Callable[[Mapping[int, Path]], None]
    ) -> list[Artifact]:
        """Several artifacts of one kind; those that are missing are made in one pass.

        Args:
            build: called with an empty folder for each missing artifact, by its place in `inputs`.

        Raises:
            StoreError: the store cannot be written, or the disk is full.
        """
        with _explained_io(self.folder), ExitStack() as stack:
            # Every process locks in the same order, so that no two wait for each other.
            for each in sorted(inputs, key=digest):
                stack.enter_context(self._lock(kind, each))
            found = [self.find(kind, each) for each in inputs]
            folders = {
                place: stack.enter_context(self.scratch())
                for place, artifact in enumerate(found)
                if artifact is None
            }
            if folders:
                build(folders)
            return [
                artifact or self._finish(folders[place], kind, inputs[place])
                for place, artifact in enumerate(found)
            ]

    def _make(self, kind: str, inputs: Inputs, build: Callable[[Path], None]) -> Artifact:
        with self.scratch() as folder:
            build(folder)
            return self._finish(folder, kind, inputs)

    def _finish(self, folder: Path, kind: str, inputs: Inputs) -> Artifact:
        """Move a filled folder to its place."""
        target = self._folder(kind, inputs)
        _write_record(folder, kind, inputs)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        flush_folder(target.parent)
        artifact = _read_artifact(target)
        if artifact is None:
            raise StoreError(f"{target} was damaged while it was written; run the command again")
        same = self._same(artifact)
        self._added(same)
        return same

    def _same(self, artifact: Artifact) -> Artifact:
        """Publish an artifact; if another machine was first, take that one."""
        if self._shared is None:
            return artifact
        with _explained_io(self.folder):
            if self._shared.publish(artifact.kind, artifact.folder.name, artifact.folder):
                (artifact.folder / PUBLISHED).write_text(self._shared.url)
                return artifact
        return self._replaced(artifact)

    def _replaced(self, artifact: Artifact) -> Artifact:
        """Take the artifact that another machine published, so that all use the same."""
        shutil.rmtree(artifact.folder, ignore_errors=True)
        fetched = self._fetched(artifact.kind, artifact.inputs)
        if fetched is None:
            raise StoreError(
                f"a {artifact.kind} in the shared store was damaged and has been removed; run the "
                "command again"
            )
        return fetched

    def check(self, artifact: Artifact) -> None:
        """Compare every file with its checksum; a damaged artifact is removed.

        Raises:
            StoreError: it was damaged.
        """
        with _explained_io(self.folder):
            damaged = [n for n, sha256 in artifact.files.items() if _hash(artifact, n) != sha256]
        if damaged:
            shutil.rmtree(artifact.folder, ignore_errors=True)
            raise StoreError(
                f"{artifact.path(damaged[0])} was changed after it was made and has been removed; "
                "run the same command to make it again"
            )

    def check_space(self, needed_bytes: int, purpose: str) -> None:
        """Check that the store's disk has space for a file, before it takes minutes to make it.

        Args:
            purpose: purpose of the file, such as "exporting denoiser sd15".

        Raises:
            StoreError: the disk has too little space.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if free < needed_bytes:
            raise StoreError(
                f"{purpose} needs {format_bytes(needed_bytes)}, and {self.folder} has "
                f"{format_bytes(free)} free; free some (`sdpack cache`), or move the cache with "
                f"{CACHE_VARIABLE}"
            )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Provide a temporary folder on the store's disk; it is removed afterwards."""
        parent = self.folder / "unfinished"
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{os.getpid()}-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, kind: str, inputs: Inputs) -> Path:
        return self.folder / kind / digest(inputs)

    def _lock(self, kind: str, inputs: Inputs) -> FileLock:
        path = self.folder / "locks" / f"{kind}-{digest(inputs)}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def artifacts(self) -> Iterator[Artifact]:
        """Every finished artifact."""
        for record in sorted(self.folder.glob(f"*/*/{RECORD}")):
            folder = record.parent
            artifact = _read_artifact(folder)
            if artifact is not None and folder.parent.name != "unfinished":
                yield artifact

    def collect(self, unused_for_s: float) -> int:
        """Remove artifacts unused for this many seconds, and leftovers; return the bytes freed."""
        before = time.time() - unused_for_s
        freed = 0
        for artifact in list(self.artifacts()):
            if artifact.used_at <= before:
                freed += artifact.bytes
                shutil.rmtree(artifact.folder, ignore_errors=True)
        for folder in (self.folder / "unfinished").glob("*"):
            if not is_running(folder.name.partition("-")[0]):
                freed += sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                shutil.rmtree(folder, ignore_errors=True)
        return freed


def _hash(artifact: Artifact, name: str) -> str | None:
    path = artifact.path(name)
    return file_sha256(path) if path.is_file() else None


def _write_record(folder: Path, kind: str, inputs: Inputs) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        flush_file(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    record = {"kind": kind, "inputs": inputs, "files": files}
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
    flush_file(folder / RECORD)


def _read_artifact(folder: Path) -> Artifact | None:
    """Return the artifact in a folder; None unless record and file sizes are as they should be."""
    try:
        record = json.loads((folder / RECORD).read_text())
        sizes = {name: (folder / name).stat().st_size for name in record["files"]}
        if any(sizes[name] != entry["bytes"] for name, entry in record["files"].items()):
            return None
        hashes = {name: str(entry["sha256"]) for name, entry in record["files"].items()}
        return Artifact(folder, record["kind"], record["inputs"], hashes, sum(sizes.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def _explained_io(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
