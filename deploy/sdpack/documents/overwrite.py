"""Checks that a command does not overwrite its own input, under any name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdpack.documents.bundle import read_manifest
from sdpack.documents.layout import MANIFEST, ships
from sdpack.errors import BundleError, InputError


def check_spared(read: Iterable[Path], written: Iterable[Path]) -> None:
    """Check that writing spares all files that are read, and adds no stray file to a bundle.

    Files are compared by identity, not by name: a symbolic link, a second hard link, a relative
    path, or a different case on a case-insensitive file system is the same file.

    Args:
        read: files, or folders whose files are all read.
        written: files, or folders that are replaced; they need not exist.

    Raises:
        InputError: an input would be overwritten or a bundle made invalid; names both paths.
    """
    targets = tuple(written)
    _check_sources(read, [path for path in targets if path.exists()])
    for path in targets:
        _check_bundles(path)


def _check_sources(read: Iterable[Path], existing: Sequence[Path]) -> None:
    if not existing:
        return
    for source in read:
        if not source.exists():
            continue
        for target in existing:
            if _is_same(target, source) or _is_within(source, target):
                raise InputError(_refusal(target, source))
            if source.is_dir() and _is_within(target, source):
                raise InputError(_refusal(target, target))
            if source.is_dir() and target.is_file():
                _check_linked(source, target)


def _check_bundles(path: Path) -> None:
    """Refuse to add a file to a bundle, which would make its check fail."""
    named = Path(os.path.realpath(path.parent)) / path.name
    for place in (named, Path(os.path.realpath(path))):
        for folder in place.parents:
            if ships(place.relative_to(folder).as_posix()) and _is_bundle(folder):
                raise InputError(
                    f"{path} would be a stray file in the bundle {folder} and make it invalid; "
                    "choose another path to write to"
                )


def _is_bundle(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    try:
        read_manifest(folder)
    except BundleError:
        return False
    return True


def _check_linked(folder: Path, target: Path) -> None:
    """Refuse a target that is a hard link to a file in the folder."""
    if target.stat().st_nlink == 1:
        return
    for path in folder.rglob("*"):
        if path.is_file() and _is_same(path, target):
            raise InputError(_refusal(target, path))


def _refusal(target: Path, source: Path) -> str:
    verb = "is" if _is_same(target, source) else "holds"
    return (
        f"{target} would be overwritten, and it {verb} {source}, which this command reads; "
        "choose another path to write to"
    )


def _is_same(one: Path, other: Path) -> bool:
    return one.samefile(other)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, after following links."""
    if not folder.is_dir():
        return False
    return any(_is_same(parent, folder) for parent in Path(os.path.realpath(path)).parents)
