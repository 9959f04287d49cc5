"""Progress messages of long work."""

from __future__ import annotations

import re
from collections.abc import Callable

Say = Callable[[str], None]
"""Callback for progress: takes one line, without a newline."""
Step = Callable[[int, int], None]
"""Callback for progress: takes the number of finished items and their total."""


class TimeIsUp(BaseException):
    """Raised between steps of long work when its time limit has passed.

    It is not an error: like KeyboardInterrupt, it must pass through code that handles errors.
    """


_PERCENT = re.compile(r": (\d+) %$")


def counted(say: Say, doing: str) -> Step:
    """Return a step that says `doing` and the percentage done."""
    return lambda done, of: say(f"{doing}: {100 * done // max(of, 1)} %")


def within(step: Step, place: int, of: int) -> Step:
    """Return a step for item `place` of `of` equal items, each with its own count of parts."""
    return lambda done, parts: step(place * parts + done, of * parts)


def without_count(words: str) -> str:
    """Return a progress message without its percentage."""
    return _PERCENT.sub("", words)


def percent_done(words: str) -> int | None:
    """Return the percentage in a progress message, or None if it has none."""
    match = _PERCENT.search(words)
    return int(match.group(1)) if match else None


def unheard(done: int, of: int) -> None:
    """Ignore progress."""
