"""Names for catalogs, from the folder or repository of a model."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

LONGEST_NAME = 64  # characters
MARK = 8  # hexadecimal digits of a hash
NAMELESS = "model"
# Names that Windows reserves, with any extension.
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def catalog_name(model: str) -> str:
    """Return a valid catalog name for this folder or repository.

    This is the last part of the path, if that is a valid name. Otherwise accents are dropped, other
    characters become hyphens, and a hash of the original is appended to keep names distinct.
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
    """Reduce a text to ASCII letters, digits, and inner hyphens, underscores and dots."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only).strip("-_.")
    if RESERVED.fullmatch(name):
        name = f"{NAMELESS}-{name}"
    return name[:LONGEST_NAME].rstrip("-_.") or NAMELESS
