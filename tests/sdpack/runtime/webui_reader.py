"""How AUTOMATIC1111's web UI reads pictures, written from its rules without sdpack's own code.

The last line holds `key: value`, separated by commas; a value that begins with a quotation mark is
a JSON string. Lines above it are the prompt and, from one that begins with `Negative prompt:` on,
the negative prompt; each is stripped.
"""

from __future__ import annotations

import json
import struct


def read_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """The prompt, the negative prompt and the settings."""
    *lines, last = text.strip().split("\n")
    prompts: list[list[str]] = [[], []]
    negative = False
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            negative, line = True, line[len("Negative prompt:") :].strip()
        prompts[negative].append(line)
    settings = {}
    while last:
        key, _, rest = last.partition(":")
        rest = rest.lstrip()
        if rest.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(rest)
            last = rest[end:].partition(",")[2]
        else:
            value, _, last = rest.partition(",")
        settings[key.strip()] = value
    return "\n".join(prompts[0]), "\n".join(prompts[1]), settings


def read_exif(exif: bytes) -> dict[int, tuple[int, bytes]]:
    """Type and bytes of each tag of big-endian EXIF, those of its second directory among them."""
    assert exif[:14] == b"Exif\0\0MM\0*\0\0\0\x08"
    tiff = exif[6:]
    found = _directory(tiff, 8)
    (start,) = struct.unpack(">L", found[0x8769][1])
    return found | _directory(tiff, start)


def _directory(tiff: bytes, start: int) -> dict[int, tuple[int, bytes]]:
    (entries,) = struct.unpack_from(">H", tiff, start)
    found = {}
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        tag, kind, count, offset = struct.unpack_from(">HHLL", tiff, at)
        size = count * {1: 1, 2: 1, 4: 4, 7: 1}[kind]
        place = at + 8 if size <= 4 else offset
        found[tag] = (kind, tiff[place : place + size])
    assert list(found) == sorted(found)
    assert struct.unpack_from(">L", tiff, start + 2 + 12 * entries) == (0,)
    return found
