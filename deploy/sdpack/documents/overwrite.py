"""A command never overwrites what it reads, by whatever name it is asked to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdpack.documents.bundle import read_manifest
from sdpack.documents.layout import MANIFEST, ships
from sdpack.errors import BundleError, InputError


def check_spared(read: Iterable[Path], written: Iterable[Path]) -> None:
    """Refuse to write over a file that is read, or in place of a folder that holds one; and to
    write a stray file into a bundle.

    Files are told apart by what they are, not by their names: a symbolic link, a second hard link,
    a relative path, or, where the file system ignores case, another spelling is the same file.

    Args:
        read: files, or folders all of whose files are read.
        written: files, or folders that are replaced; those that do not exist yet spare everything.

    Raises:
        InputError: names both paths.
    """
    targets = tuple(written)
    _check_sources(read, [path for path in targets if path.exists()])
    for path in targets:
        _check_bundles(path)


def _check_sources(read: Iterable[Path], there: Sequence[Path]) -> None:
    if not there:
        return
    for source in read:
        if not source.exists():
            continue
        for target in there:
            if _is_same(target, source) or _is_within(source, target):
                raise InputError(_refusal(target, source))
            if source.is_dir() and _is_within(target, source):
                raise InputError(_refusal(target, target))
            if source.is_dir() and target.is_file():
                _check_linked(source, target)


def _check_bundles(path: Path) -> None:
    """Refuse a file more in a bundle, which would not pass its check with it."""
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
    """Refuse a file that is also in the folder under another name: a hard link."""
    if target.stat().st_nlink == 1:
        return
    for path in folder.rglob("*"):
        if path.is_file() and _is_same(path, target):
            raise InputError(_refusal(target, path))


def _refusal(target: Path, source: Path) -> str:
    what = "is" if _is_same(target, source) else "holds"
    return (
        f"{target} would be overwritten, and it {what} {source}, which this command reads; "
        "choose another path to write to"
    )


def _is_same(one: Path, other: Path) -> bool:
    return one.samefile(other)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path, links followed, lies in a folder."""
    if not folder.is_dir():
        return False
    return any(_is_same(parent, folder) for parent in Path(os.path.realpath(path)).parents)
