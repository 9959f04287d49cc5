"""File names for the images of `sdpack run`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from sdpack.errors import PromptError, StoreError
from sdpack.runtime.pictures import SUFFIXES, Format, encoding_of
from sdpack.store.files import write_whole

FOLDER_SUFFIX = ".png"  # suffix of images in a folder


def picture_paths(out: Path, pictures: int) -> Iterator[Path]:
    """Yield a path for each image, and create missing folders.

    A single image gets the given file name. Several images, and images in a folder, are numbered:
    pizza-1.jpg, pizza-2.jpg, or 1.png, 2.png. Numbers continue after existing ones, so that earlier
    images are kept.

    Raises:
        PromptError: the suffix is not a supported format.
        StoreError: a folder cannot be created or read.
    """
    try:
        is_folder = out.is_dir() or not out.suffix
        if not is_folder and encoding_of(out) is None:
            raise PromptError(
                f"--out {out}: images are written as {', '.join(SUFFIXES)}, not {out.suffix}; "
                "choose one of these, or create that folder first to write into it"
            )
        folder = out if is_folder else out.parent
        folder.mkdir(parents=True, exist_ok=True)
        if not is_folder and pictures == 1:
            return iter([out])
        stem, suffix = ("", FOLDER_SUFFIX) if is_folder else (f"{out.stem}-", out.suffix)
        first = 1 + max(_numbers(folder, stem, suffix), default=0)
    except OSError as cause:
        raise unwritable(out, cause) from cause
    return (folder / f"{stem}{number}{suffix}" for number in count(first))


def _numbers(folder: Path, stem: str, suffix: str) -> Iterator[int]:
    """Yield the numbers in a folder's matching file names, regardless of case."""
    name = re.compile(rf"{re.escape(stem)}([0-9]{{1,18}}){re.escape(suffix)}", re.IGNORECASE)
    for path in folder.iterdir():
        found = name.fullmatch(path.name)
        if found is not None:
            yield int(found[1])


def format_of(path: Path) -> Format:
    """Return the format of a path from `picture_paths`."""
    encoding = encoding_of(path)
    assert encoding is not None
    return Format(encoding)


def write_picture(path: Path, file: bytes) -> None:
    """Write an image file atomically.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        write_whole(path, file)
    except OSError as cause:
        raise unwritable(path, cause) from cause


def unwritable(path: Path, cause: OSError) -> StoreError:
    """Return an error for a file or folder that cannot be written."""
    return StoreError(f"{path} cannot be written ({cause.strerror or cause}); choose --out")
