"""Parts that stay loaded between the pictures of an evaluation."""

from __future__ import annotations

import time

from sdpack.domain.placement import Role
from sdpack.engines.session import Session
from sdpack.evaluate.pipeline_spec import LoadablePart

OPEN_BYTES = 2 * 2**30  # about what all open parts may take together


class OpenParts:
    """Keeps the last used part of each role open for its next use.

    A large part closes the others before it is opened, because loading it takes twice the memory
    that it needs afterwards.

    Attributes:
        opening_s: seconds spent on opening parts, and on closing others to make room for them.
    """

    def __init__(self) -> None:
        self.opening_s = 0.0
        self._open: dict[Role, tuple[LoadablePart, Session]] = {}

    def session(self, role: Role, part: LoadablePart) -> Session:
        """An open session of this part; parts that leave no room for it are closed."""
        held = self._open.get(role)
        if held is not None and held[0].content == part.content:
            return held[1]
        since = time.perf_counter()
        self._close(role)
        for other in list(self._open):
            if part.bytes + sum(there.bytes for there, _ in self._open.values()) > OPEN_BYTES:
                self._close(other)
        session = part.load()
        self._open[role] = (part, session)
        self.opening_s += time.perf_counter() - since
        return session

    def _close(self, role: Role) -> None:
        held = self._open.pop(role, None)
        if held is not None:
            held[1].close()
