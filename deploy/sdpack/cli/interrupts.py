"""Ctrl-C that nobody overhears."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_interrupted = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Within it, an interrupt is remembered besides raising KeyboardInterrupt.

    The exception alone is lost where it strikes in a finalizer, a callback from native code or a
    library's bare `except`. Leaves another handler than Python's own, or none, as it is.
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
    """Called between two steps of long work: raises KeyboardInterrupt if there was one."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupted.set()
    raise KeyboardInterrupt
