"""EXIF metadata (CIPA DC-008, section 4.6): a TIFF structure of tags.

Pillow also writes tags, but gives UserComment the type BYTE. The specification requires UNDEFINED,
and piexif, which AUTOMATIC1111's web UI uses, accepts nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from PIL import ExifTags

ASCII, LONG, UNDEFINED = 2, 4, 7  # types of values
HEADER = b"MM\0*\0\0\0\x08"  # big-endian, tags from byte 8 on
INLINE = 4  # bytes of a value that stand in its entry; longer ones behind the entries
EXIF_VERSION = b"0232"
UNICODE = b"UNICODE\0"  # the first eight bytes of a UserComment say what follows


def exif_bytes(software: str, comment: str, maker_note: bytes | None = None) -> bytes:
    """Return EXIF metadata with a UserComment.

    The byte order is big-endian, like that of the UTF-16 comment, because some readers assume that
    both are the same.

    Args:
        software: name of the program that wrote the file, in ASCII.
        comment: the comment.
        maker_note: bytes for this program's own use.
    """
    pointer = {ExifTags.Base.ExifOffset: (LONG, struct.pack(">L", 0))}
    first = {ExifTags.Base.Software: (ASCII, software.encode("ascii") + b"\0"), **pointer}
    start = len(HEADER) + len(_directory(first, 0))
    first[ExifTags.Base.ExifOffset] = (LONG, struct.pack(">L", start))
    second = {ExifTags.Base.ExifVersion: (UNDEFINED, EXIF_VERSION)}
    if maker_note is not None:
        second[ExifTags.Base.MakerNote] = (UNDEFINED, maker_note)
    second[ExifTags.Base.UserComment] = (UNDEFINED, UNICODE + comment.encode("utf-16-be"))
    return b"Exif\0\0" + HEADER + _directory(first, len(HEADER)) + _directory(second, start)


def _directory(tags: Mapping[ExifTags.Base, tuple[int, bytes]], start: int) -> bytes:
    """Return a directory of tags, followed by the long values.

    Args:
        tags: type and bytes of each value, by ascending tag.
        start: byte offset of the directory.
    """
    entries, values = struct.pack(">H", len(tags)), b""
    behind = start + 2 + 12 * len(tags) + 4
    for tag, (kind, value) in tags.items():
        count = len(value) // (4 if kind == LONG else 1)
        if len(value) <= INLINE:
            place = value.ljust(INLINE, b"\0")
        else:
            place = struct.pack(">L", behind + len(values))
            values += value + b"\0" * (len(value) % 2)  # values begin at even bytes
        entries += struct.pack(">HHL", tag, kind, count) + place
    return entries + struct.pack(">L", 0) + values
