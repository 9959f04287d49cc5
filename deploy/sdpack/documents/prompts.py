"""Prompt files: JSON lines, with a category and a caption for judges where they help."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpack.errors import CatalogError

KEYS = ("category", "judged", "swapped", "rendered")  # optional keys of a line, each with a text


@dataclass(frozen=True)
class CatalogPrompt:
    """A prompt of a catalog.

    Attributes:
        text: the prompt itself.
        category: the ability that it tests, such as "count"; empty if the file names none.
        judged: the caption that judges compare images with, if it is not the text: its English
            translation, or the text without what must not be there.
        swapped: a caption that is wrong in one detail, to check judges; may be empty.
        rendered: the text that the image should show; empty if none.
    """

    text: str
    category: str = ""
    judged: str = ""
    swapped: str = ""
    rendered: str = ""

    @property
    def caption(self) -> str:
        """The caption that judges compare images with."""
        return self.judged or self.text


def read_prompt_file(path: Path) -> list[CatalogPrompt]:
    """Read a JSON lines file of prompts.

    Raises:
        CatalogError: the file is missing or empty, a line has no text, or a value is not a text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as cause:
        raise CatalogError(f"{path} cannot be read ({cause}); give a file of prompts") from cause
    found = [_prompt(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise CatalogError(f'{path} holds no prompts; write one {{"text": "a prompt"}} per line')
    return found


def _prompt(line: str, where: str) -> CatalogPrompt:
    try:
        value = json.loads(line)
    except ValueError as cause:
        raise CatalogError(f'{where}: not JSON; write {{"text": "a prompt"}}') from cause
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise CatalogError(f'{where}: no "text"; write {{"text": "a prompt"}}')
    return CatalogPrompt(text, *(_optional(value, key, where) for key in KEYS))


def _optional(value: dict[str, Any], key: str, where: str) -> str:
    found = value.get(key, "")
    if not isinstance(found, str):
        raise CatalogError(f"{where}: {key} is {found!r}; write a text, or leave it out")
    return found.strip()
