"""The licence that a model's card states: the settings at the top of its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MODEL_CARD = "README.md"
_RULE = "---"
OTHER = "other"  # the hub's name of a licence that it has no name for; license_name then has one


def stated_licence(folder: Path) -> str | None:
    """Return the licence that the card in a model's folder states; None if it states none."""
    try:
        text = (folder / MODEL_CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return licence_of_card(text)


def licence_of_card(text: str) -> str | None:
    """Return the licence that a card states; None if it states none or is damaged."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != _RULE:
        return None
    end = next((n for n, line in enumerate(lines) if n and line.strip() == _RULE), 0)
    try:
        settings: Any = yaml.safe_load("\n".join(lines[1:end]))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(settings, dict):
        return None
    names = settings.get("license")
    names = [str(name).strip() for name in (names if isinstance(names, list) else [names]) if name]
    own = settings.get("license_name")
    if names == [OTHER] and own:
        return str(own).strip()
    return ", ".join(names) or None
