"""Reliable handling of Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_interrupted = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Remember an interrupt within this context, in addition to raising KeyboardInterrupt.

    The exception alone is lost if it occurs in a finalizer, in a callback from native code, or
    within a library's bare `except`. Only Python's default handler is replaced.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _interrupted.clear()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted.clear()


def heed() -> None:
    """Raise KeyboardInterrupt if an interrupt was remembered; called between steps of long work."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    raise KeyboardInterrupt
