"""Bytes, counts and durations as people write them."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from sdpack.errors import InputError

BYTES_PER = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
LARGEST_SIZE = 2**80
KIB, MIB = 2**10, 2**20
_BY_LOWER = {unit.lower(): count for unit, count in BYTES_PER.items()}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Bytes of "24MiB", "4 GiB", "1.5GB" or a plain number of bytes; at least 1.

    Raises:
        InputError: not a size, an unknown unit, or less than a byte.
    """
    match = _SIZE.fullmatch(str(text))
    unit = (match.group(2) if match else "?").lower()
    if match is None or unit not in {"", *_BY_LOWER}:
        raise InputError(f"{text!r} is not a size in bytes; write it like 24MiB, 4GiB or 500MB")
    size = Fraction(match.group(1)) * _BY_LOWER.get(unit, 1)
    if size > LARGEST_SIZE:
        raise InputError(f"{text!r:.40} is larger than any memory; write a size like 24MiB")
    count = round(size)
    if count < 1:
        raise InputError(f"{text!r} is less than one byte; write a size like 24MiB")
    return count


def format_bytes(count: int) -> str:
    """ "26.0 MiB": one decimal, in the largest binary unit that keeps the number at 1 or more."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def format_count(count: int) -> str:
    """ "859.5 M": one decimal, in the largest of k, M and G that keeps the number at 1 or more."""
    size = float(count)
    for unit in ("", " k", " M"):
        if abs(size) < 1000:
            return f"{size:.1f}{unit}" if unit else str(count)
        size /= 1000
    return f"{size:.2f} G"


def parse_duration(text: str) -> float:
    """Parse "90s", "12m" or "1h30m" into seconds.

    Raises:
        InputError: the text is not a duration above zero.
    """
    match = re.fullmatch(
        r"(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m(?:in)?)?\s*(?:(\d+(?:\.\d+)?)s)?",
        text.strip().lower(),
    )
    hours, minutes, seconds = (float(n or 0) for n in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total or not math.isfinite(total):
        raise InputError(f"{text!r} is not a duration; write it like 90s, 12m, 2h or 1h30m")
    return total


def format_duration(seconds: float) -> str:
    """ "0.8 s", "12 s", "3 min 12 s", "1 h 5 min": at most two units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def format_estimate(seconds: float) -> str:
    """ "20 s", "4 min", "1 h 20 min": rounded as coarsely as estimates deserve; at least 10 s."""
    if seconds <= 50:
        return f"{max(math.ceil(seconds / 10), 1) * 10} s"
    minutes = max(round(seconds / 60), 1)
    return format_duration(60 * (minutes if minutes < 60 else 10 * round(minutes / 10)))
