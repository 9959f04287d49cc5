"""Reading, checking and writing a bundle's folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import (
    ValidationError,
)

from sdpack.documents.layout import CONTACT_SHEET, LEDGER, MANIFEST, VERIFIED, ships
from sdpack.documents.manifest import Manifest
from sdpack.errors import BundleError, StoreError
from sdpack.store.artifacts import file_sha256
from sdpack.store.files import explain_io


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle.

    Raises:
        BundleError: the manifest is missing, or this version cannot read it.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Manifest.model_validate(values)
    except OSError as cause:
        raise BundleError(
            f"{folder} is not a bundle: {path} cannot be read ({cause.strerror}); check the path"
        ) from cause
    except ValidationError as cause:
        problem = cause.errors(include_url=False)[0]
        key = ".".join(str(step) for step in problem["loc"])
        raise BundleError(f"{path}: {key}: {problem['msg']}; build the bundle again") from cause
    except ValueError as cause:
        raise BundleError(f"{path} is not valid JSON ({cause}); build the bundle again") from cause


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check every file in the manifest against its checksum.

    Raises:
        BundleError: a file is missing, changed, has no checksum, or lies outside the bundle.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        if "\0" in name or not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(
                f"{folder / MANIFEST} names {name}, outside the bundle; do not use this bundle"
            )
        if not path.is_file():
            raise BundleError(f"{path} is missing; copy the bundle again")
        if file_sha256(path) != expected:
            raise BundleError(
                f"{path} has SHA-256 {file_sha256(path)} instead of {expected}: it was truncated "
                "or changed; copy the bundle again"
            )
    existing = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    named = {used for part in manifest.parts.values() for used in part.files}
    for name in sorted({name for name in existing if ships(name)} | named):
        if name not in manifest.files:
            raise BundleError(
                f"{folder / MANIFEST}: {name} has no checksum; do not use this bundle, or remove "
                "the file if you put it there"
            )


def open_bundle(folder: Path) -> Manifest:
    """Check all files of a bundle and return its manifest.

    Raises:
        BundleError: the bundle is incomplete or damaged.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    return manifest


def bundle_files(folder: Path) -> list[Path]:
    """Return the files that commands read from a bundle: those that ship, and verified.json.

    For any other folder, such as a study's, returns its ledger and contact sheet; for a ledger
    file, that file.
    """
    if not folder.is_dir():
        return [folder]
    try:
        manifest = read_manifest(folder)
    except BundleError:
        return [folder / MANIFEST, folder / LEDGER, folder / CONTACT_SHEET]
    return [folder / name for name in (MANIFEST, VERIFIED, *manifest.files)]


def write_bundle(
    folder: Path,
    manifest: Manifest,
    fill: Callable[[Path], None],
    finish: Callable[[Path], None] | None = None,
) -> Manifest:
    """Write a bundle, or nothing if anything fails; an existing bundle is replaced at the end.

    Args:
        folder: the bundle's folder.
        manifest: its manifest, without checksums.
        fill: called with an empty folder; writes all files but the manifest.
        finish: called with the complete folder before it replaces an existing bundle; its files get
            no checksums.

    Returns:
        The manifest with checksums.

    Raises:
        StoreError: the folder cannot be written, or another build is writing it.
    """
    folder = folder.resolve()
    try:
        with sole_writer(folder), _aside(folder) as new:
            fill(new)
            files = {
                path.relative_to(new).as_posix(): file_sha256(path)
                for path in sorted(new.rglob("*"))
                if path.is_file() and ships(path.relative_to(new).as_posix())
            }
            complete = manifest.model_copy(update={"files": files})
            text = json.dumps(complete.model_dump(mode="json", by_alias=True), indent=1)
            (new / MANIFEST).write_text(text + "\n", encoding="utf-8")
            if finish is not None:
                finish(new)
            _replace(folder, new)
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    return complete


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other builds out of this folder; may be nested within one process.

    Raises:
        StoreError: another build uses the folder, it cannot be written, or it holds files that are
            not a bundle and would be lost.
    """
    folder = folder.resolve()
    if not folder.name:
        raise StoreError(f"{folder} cannot be a bundle; give --out a folder of its own")
    try:
        is_other = folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir())
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    if is_other:
        raise StoreError(
            f"{folder} holds files but no {MANIFEST}; a build would replace them: choose "
            "another --out"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"), is_singleton=True)
        lock.acquire(timeout=0)
    except Timeout as cause:
        raise StoreError(f"another build is writing {folder}; wait for it or use --out") from cause
    except OSError as cause:
        raise StoreError(explain_io(cause, folder)) from cause
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    new = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(folder: Path, new: Path) -> None:
    for path in new.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
