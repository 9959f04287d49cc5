"""What long work says of how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable

Say = Callable[[str], None]
"""Told in a line what is being done."""
Step = Callable[[int, int], None]
"""Told how many things are done, of how many."""

_HOW_FAR = re.compile(r": (\d+) %$")


def counted(say: Say, doing: str) -> Step:
    """A step that says what is being done, and how much of it is."""
    return lambda done, of: say(f"{doing}: {100 * done // max(of, 1)} %")


def within(step: Step, place: int, of: int) -> Step:
    """A step for what is done at one of so many places."""
    return lambda done, parts: step(place * parts + done, of * parts)


def without_count(words: str) -> str:
    """What is being done, however far it is."""
    return _HOW_FAR.sub("", words)


def percent_done(words: str) -> int | None:
    """How far the words say it is; None where they do not."""
    match = _HOW_FAR.search(words)
    return int(match.group(1)) if match else None


def unheard(done: int, of: int) -> None:
    """A step nobody is told of."""
