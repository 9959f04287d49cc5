"""The time limit of a build."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sdpack.progress import Say, TimeIsUp

FINISH_S = 12.0  # to measure the winner and to write its bundle, besides drawing its samples
FINISH_SHARE = 0.25  # of the limit, at most, that is kept for it


@dataclass
class Deadline:
    """Raises TimeIsUp between the steps of a build, once, when its time has passed.

    It is not raised before `arm` is called, so that a build without any result goes on until it has
    one.

    Attributes:
        limit_s: seconds from the creation of this object to the end of the build.
        now: a monotonic clock, in seconds.
    """

    limit_s: float
    now: Callable[[], float] = time.monotonic
    is_up: bool = field(default=False, init=False)
    _is_armed: bool = field(default=False, init=False)
    _reserve_s: float = field(default=FINISH_S, init=False)

    def __post_init__(self) -> None:
        self._began = self.now()

    @property
    def left_s(self) -> float:
        """Seconds until no other step may begin; negative when it is late."""
        reserve = min(self._reserve_s, FINISH_SHARE * self.limit_s)
        return self._began + self.limit_s - reserve - self.now()

    def reserve(self, seconds: float) -> None:
        """Keep so many seconds for the samples of the bundle."""
        self._reserve_s = FINISH_S + seconds

    def arm(self) -> None:
        """Raise TimeIsUp from now on."""
        self._is_armed = True

    def disarm(self) -> None:
        """Raise it no more, because the bundle is being written."""
        self._is_armed = False

    def check(self) -> None:
        """Raise TimeIsUp if the time has passed, and never again.

        Raises:
            TimeIsUp: the time has passed.
        """
        if self._is_armed and not self.is_up and self.left_s <= 0:
            self.is_up = True
            raise TimeIsUp

    def watching(self, tell: Say) -> Say:
        """A function that forwards lines of progress, and checks the time at each."""

        def say(line: str) -> None:
            tell(line)
            self.check()

        return say
