"""A shared store: artifacts that several machines make and use, in a folder or an object store.

    files/AB/ABCD...        a file of any artifact, named after its SHA-256
    records/KIND/KEY.json   the record of an artifact: its inputs, and its files by name

A file is named after its content, so writing it twice changes nothing, and every reader compares
what it read with the name. The record is written last, and only if there is none: of two machines
that make the same artifact at once, the first decides, and the other takes its files. So nobody
reads a half-written artifact. In a folder, files are also written under a temporary name first;
object stores show an object only when it is complete.

The address is any that fsspec can open, such as s3://bucket/folder or file:///mnt/shared.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpack.errors import MissingPackageError, StoreError
from sdpack.store.artifacts import RECORD, file_sha256
from sdpack.store.files import explain_io

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

FOLDER_PROTOCOLS = ("file", "local")


class SharedStore:
    """Artifacts at an address that several machines can reach.

    Args:
        url: the address.

    Raises:
        StoreError: the address is wrong.
        MissingPackageError: the package for this kind of address is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, self._root = _opened(url)

    def fetch(self, kind: str, key: str, folder: Path) -> bool:
        """Fill an empty folder with an artifact, its record last.

        An artifact that was damaged is removed, so that it can be made again.

        Returns:
            whether there is one.

        Raises:
            StoreError: the store cannot be read.
        """
        record_path = self._record_path(kind, key)
        with self._explained():
            try:
                record = self._files.cat_file(record_path)
            except FileNotFoundError:
                return False
            files = _files_of(record)
            if files is None or not all(
                self._get(entry["sha256"], folder / name) for name, entry in files.items()
            ):
                self._remove(record_path)
                return False
            (folder / RECORD).write_bytes(record)
        return True

    def publish(self, kind: str, key: str, folder: Path) -> bool:
        """Write an artifact, unless another machine was first.

        Returns:
            whether others will see these files: False if another machine made different ones.

        Raises:
            StoreError: the store cannot be written, or is full.
        """
        record = (folder / RECORD).read_bytes()
        with self._explained():
            for name, entry in json.loads(record)["files"].items():
                self._put(folder / name, self._file_path(entry["sha256"]), int(entry["bytes"]))
            path = self._record_path(kind, key)
            return self._create(path, record) or _files_of(record) == self._published(path)

    def check(self) -> None:
        """Check that the store can be written and read.

        Raises:
            StoreError: it cannot.
        """
        path = f"{self._root}/records/check-{os.getpid()}"
        with self._explained():
            self._create(path, b"{}")
            self._files.cat_file(path)
            self._remove(path)

    def _published(self, path: str) -> Mapping[str, Any] | None:
        """The files that a published record names."""
        try:
            return _files_of(self._files.cat_file(path))
        except FileNotFoundError:
            return None

    def _get(self, sha256: str, path: Path) -> bool:
        """Fetch a file; False if it is missing or damaged."""
        path.parent.mkdir(parents=True, exist_ok=True)
        remote = self._file_path(sha256)
        try:
            self._files.get_file(remote, str(path))
        except FileNotFoundError:
            return False
        if file_sha256(path) == sha256:
            return True
        self._remove(remote)
        return False

    def _put(self, path: Path, remote: str, size: int) -> None:
        try:
            if self._files.info(remote)["size"] == size:
                return
        except FileNotFoundError:
            pass
        if not self._is_folder:
            self._files.put_file(str(path), remote)
            return
        with _temporary_beside(Path(remote)) as unfinished:
            self._files.put_file(str(path), str(unfinished))
            unfinished.replace(remote)

    def _create(self, path: str, content: bytes) -> bool:
        """Write a file that is not there; False if it is."""
        try:
            if not self._is_folder:
                self._files.pipe_file(path, content, mode="create")
                return True
            with _temporary_beside(Path(path)) as unfinished:
                unfinished.write_bytes(content)
                os.link(unfinished, path)
                return True
        except FileExistsError:
            return False

    def _remove(self, path: str) -> None:
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            return

    @property
    def _is_folder(self) -> bool:
        protocol = self._files.protocol
        return not set(FOLDER_PROTOCOLS).isdisjoint(
            (protocol,) if isinstance(protocol, str) else protocol
        )

    def _file_path(self, sha256: str) -> str:
        return f"{self._root}/files/{sha256[:2]}/{sha256}"

    def _record_path(self, kind: str, key: str) -> str:
        return f"{self._root}/records/{kind}/{key}.json"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of the file system and of its client into a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except OSError as cause:
            if cause.errno is not None and self._is_folder:
                raise StoreError(f"SDPACK_STORE: {explain_io(cause, Path(self._root))}") from cause
            raise StoreError(self._refused(cause)) from cause
        except Exception as cause:  # each client has its own exceptions
            raise StoreError(self._refused(cause)) from cause

    def _refused(self, cause: Exception) -> str:
        reason = (str(cause) or type(cause).__name__).splitlines()[0].rstrip(".")
        return f"SDPACK_STORE: {self.url}: {reason}; check the address and the credentials"


def _opened(url: str) -> tuple[AbstractFileSystem, str]:
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as cause:
        raise MissingPackageError("fsspec", "ray", "a shared store") from cause
    if "://" not in url:
        raise StoreError(
            f"SDPACK_STORE: {url} is not an address; give one such as s3://bucket/folder or "
            "file:///mnt/shared"
        )
    try:
        files, root = url_to_fs(url)
    except ImportError as cause:
        raise StoreError(f"SDPACK_STORE: {url}: {cause}") from cause
    except Exception as cause:  # each client has its own exceptions
        raise StoreError(f"SDPACK_STORE: {url}: {cause}; check the address") from cause
    return files, str(root).rstrip("/")


def _files_of(record: bytes) -> Mapping[str, Any] | None:
    """Return the files that a record names; None if it is damaged."""
    try:
        files = json.loads(record)["files"]
        return files if all({"sha256", "bytes"} <= set(each) for each in files.values()) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


@contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """Provide the name of a new file in the folder of a path; it is removed afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-")
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
