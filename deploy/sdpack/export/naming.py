"""The name of a catalog, from the folder or repository its model lies in."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

LONGEST_NAME = 64  # characters
MARK = 8  # hexadecimal digits of a hash
NAMELESS = "model"
# Names no file or folder can have on Windows, whatever follows after a dot.
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def catalog_name(model: str) -> str:
    """A valid name for a catalog of this folder or repository.

    The last part of the path, where it is a valid name. Otherwise accents are dropped, other
    characters become hyphens, and a hash of the original is appended, so that two folders never
    share a name for what was lost of theirs.
    """
    path = Path(model.rstrip("/")).expanduser()
    original = path.name or path.resolve().name
    if original in ("", ".", ".."):
        original = path.resolve().name
    plain = _plain(original)
    if plain == original:
        return plain
    digest = hashlib.sha256(original.encode("utf-8", "surrogateescape")).hexdigest()[:MARK]
    return f"{plain[: LONGEST_NAME - MARK - 1].rstrip('-_.') or NAMELESS}-{digest}"


def _plain(text: str) -> str:
    """The text in ASCII letters, digits, hyphens, underscores and dots; letters or digits at the
    ends.
    """
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only).strip("-_.")
    if RESERVED.fullmatch(name):
        name = f"{NAMELESS}-{name}"
    return name[:LONGEST_NAME].rstrip("-_.") or NAMELESS
