"""Writing files so that they are complete or missing, and errors of writing in one line."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path


def flush_file(path: Path) -> None:
    """Have the system write a file to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


flush_folder = flush_file  # on POSIX a folder is flushed like a file


def unfinished_name(name: str) -> str:
    """Return the name of a file while it is being written."""
    return f".{name}.unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so it is replaced at once or not at all.

    A symbolic or hard link at `path` is replaced; its target stays.

    Raises:
        OSError: it cannot be written.
    """
    new = path.parent / unfinished_name(path.name)
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where hard links are not supported."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def explain_io(cause: OSError, folder: Path) -> str:
    """Describe a failed write in one line: place, problem, remedy."""
    where = cause.filename2 or cause.filename or folder  # filename2 is the target of a copy
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: no space left; free some, for instance with `sdpack cache gc`"
    if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}: not writable; choose another folder"
    if cause.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{where}: a file exists where a folder is needed; choose another path"
    if cause.errno == errno.EISDIR:
        return f"{where}: a folder exists where a file is needed; choose another path"
    return f"{where}: {cause.strerror or cause}; check the disk"
