"""Which worker does which job next.

Every worker keeps what it opened between two jobs, such as a loaded denoiser, and every machine
what it fetched. A worker therefore gets a job of the group it last worked on, or else of one that
its machine worked on. A job whose worker died is done again. At the end, when there are workers to
spare, a job that takes much longer than others is also given to a second worker: the first result
counts. Workers that would still be idle do jobs ahead, which nobody waits for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from sdpack.errors import WorkerError
from sdpack.workers.jobs import WorkerJob

MOST_DEATHS = 3  # of workers at one job; it would probably kill the next one as well
SLOW = 2.0  # times the median of finished jobs, after which a second worker does a job too
FEWEST_FINISHED = 3  # jobs whose median says what is usual


@dataclass
class Assignments:
    """The jobs of one run: which wait, which are done, and how often their workers died.

    Attributes:
        jobs: all jobs; they are named by their places in this list.
        now: a monotonic clock, in seconds.
    """

    jobs: Sequence[WorkerJob]
    now: Callable[[], float] = time.monotonic
    _waiting: list[int] = field(init=False)
    _began: dict[int, float] = field(default_factory=dict, init=False)
    _doing: Counter[int] = field(default_factory=Counter, init=False)
    _deaths: Counter[int] = field(default_factory=Counter, init=False)
    _took: list[float] = field(default_factory=list, init=False)
    _finished: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._waiting = list(range(len(self.jobs)))

    @property
    def is_done(self) -> bool:
        """Whether all jobs are done, except those ahead."""
        return all(job.is_ahead or place in self._finished for place, job in enumerate(self.jobs))

    @property
    def waiting(self) -> int:
        """The number of jobs that no worker does yet."""
        return len(self._waiting)

    def waiting_for(self, has_gpu: bool) -> int:
        """The number of waiting jobs that go to workers with a GPU, or to the others."""
        return sum(self.jobs[place].needs_gpu is has_gpu for place in self._waiting)

    def take(
        self,
        groups: Sequence[Collection[str]],
        taken: Collection[str] = (),
        has_gpu: bool | None = None,
        is_ahead: bool = False,
    ) -> int | None:
        """Give a job to a worker; returns its place, or None if no job waits for it.

        Args:
            groups: the groups the worker prefers: those of its last job, of its machine, ...
            taken: the groups of the other workers' last jobs, which come last.
            has_gpu: None for a worker that does every job.
            is_ahead: whether to give a job ahead, or one of the others.
        """
        able = [
            place
            for place in self._waiting
            if self.jobs[place].is_ahead is is_ahead
            if has_gpu is None or self.jobs[place].needs_gpu is has_gpu
        ]
        if not able:
            return None
        place = self._preferred(able, groups, taken)
        self._waiting.remove(place)
        self._begin(place)
        return place

    def take_slow(self, own: Iterable[int] = (), has_gpu: bool | None = None) -> int | None:
        """Give a job that takes long to a second worker; returns its place, or None.

        Args:
            own: jobs that this worker does already.
        """
        if len(self._took) < FEWEST_FINISHED or self.waiting > self._waiting_ahead:
            return None
        since = self.now() - SLOW * median(self._took)
        slow = [
            place
            for place, began in self._began.items()
            if began < since and self._doing[place] == 1 and place not in own
            if not self.jobs[place].is_ahead
            if has_gpu is None or self.jobs[place].needs_gpu is has_gpu
        ]
        if not slow:
            return None
        place = min(slow, key=self._began.__getitem__)
        self._doing[place] += 1
        return place

    def finish(self, place: int) -> bool:
        """Record a result; returns False if another worker's came before."""
        if place in self._finished:
            return False
        self._finished.add(place)
        self._took.append(self.now() - self._began.pop(place))
        return True

    def lose(self, place: int, why: str, remedy: str) -> None:
        """Have the job of a worker that died done again.

        Args:
            why: how the worker ended.
            remedy: what the user can do.

        Raises:
            WorkerError: it is the third that died at this job.
        """
        if place in self._finished:
            return
        if self.jobs[place].is_ahead:
            del self._began[place]
            return
        self._deaths[place] += 1
        self._doing[place] -= 1
        if self._deaths[place] >= MOST_DEATHS:
            raise WorkerError(
                f"{self.jobs[place].name}: {self._deaths[place]} worker processes died of it "
                f"({why}); {remedy}"
            )
        if not self._doing[place]:
            del self._began[place]
            self._waiting.insert(0, place)

    def adopt(self, key: str) -> int | None:
        """Take a job with this key as begun, by a worker that does it already; returns its place.

        Returns None if no job has it.
        """
        place = next((each for each in self._waiting if self.jobs[each].key == key), None)
        if place is not None:
            self._waiting.remove(place)
            self._begin(place)
        return place

    @property
    def _waiting_ahead(self) -> int:
        return sum(self.jobs[place].is_ahead for place in self._waiting)

    def _preferred(
        self, able: Sequence[int], groups: Sequence[Collection[str]], taken: Collection[str]
    ) -> int:
        for preferred in groups:
            for place in able:
                if self.jobs[place].group in preferred:
                    return place
        free = (place for place in able if self.jobs[place].group not in taken)
        return next(free, able[0])

    def _begin(self, place: int) -> None:
        self._began[place] = self.now()
        self._doing[place] = 1
