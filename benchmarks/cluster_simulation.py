"""A build on a cluster, simulated: the real assignment of jobs, and tasks that only take time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sdpack.workers.assignments import Assignments
from sdpack.workers.jobs import WorkerJob

LOOK_S = 5.0  # between looks for slow jobs
Event = tuple[float, int, str, bool]
"""When something ends, which worker, the key of its job, and whether the worker died."""


@dataclass(frozen=True)
class SimulatedRound:
    """Jobs that are done before the next round is known.

    Attributes:
        name: the stage, in words.
        seconds: of each job.
        groups: the groups of the jobs, in turn.
        ahead: how many jobs of the next round workers may do ahead.
        staying: the share of those ahead that the next round needs.
    """

    name: str
    seconds: tuple[float, ...]
    groups: int = 1
    ahead: int = 0
    staying: float = 1.0


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and what tasks cost beside their work.

    Attributes:
        spread: measured durations divided by their median; each task is multiplied by one of them.
        slow_share: the share of tasks on a slow machine, which take `slow_times` as long.
        mtbf_s: mean seconds between deaths of a worker; infinite for none.
        restart_s: seconds until a dead worker is replaced, and until the first ones begin.
        overhead_s: seconds of a task beside its work.
        opening_s: seconds to open the files of another group.
    """

    spread: Sequence[float] = (1.0,)
    slow_share: float = 0.0
    slow_times: float = 4.0
    mtbf_s: float = float("inf")
    restart_s: float = 20.0
    overhead_s: float = 0.02
    opening_s: float = 10.0


@dataclass
class Simulation:
    """Does the rounds of a build with a number of workers.

    Attributes:
        work_s: seconds of work that was needed, without trouble.
        by_round: the name, the seconds and the efficiency of each round so far.
    """

    workers: int
    trouble: Trouble
    rng: random.Random
    work_s: float = field(default=0.0, init=False)
    by_round: list[tuple[str, float, float]] = field(default_factory=list, init=False)
    _now: float = field(default=0.0, init=False)
    _group: dict[int, str] = field(default_factory=dict, init=False)
    _early: set[str] = field(default_factory=set, init=False)
    _busy: list[Event] = field(default_factory=list, init=False)

    def run(self, rounds: Sequence[SimulatedRound]) -> float:
        """Do the rounds; returns the efficiency: work divided by the time of all workers."""
        self._now = self.trouble.restart_s
        for number, each in enumerate(rounds):
            began = self._now
            self._do(number, each)
            work, took = sum(each.seconds), max(self._now - began, 1e-9)
            self.work_s += work
            self.by_round.append((each.name, took, work / (took * self.workers)))
        return self.work_s / (self._now * self.workers)

    def _do(self, number: int, one: SimulatedRound) -> None:
        """Do a round's jobs, except those that were done ahead, and some of the next one's."""
        wanted = [f"{number}:{place}" for place in range(len(one.seconds))]
        jobs = [
            WorkerJob(one.name, f"{one.name} {place % one.groups}", seconds, key=key)
            for place, (key, seconds) in enumerate(zip(wanted, one.seconds, strict=True))
            if key not in self._early
        ]
        jobs += [self._ahead(number, one, place) for place in range(one.ahead)]
        assignments = Assignments(jobs, lambda: self._now)
        places = {event[1]: assignments.adopt(event[2]) for event in self._busy}
        idle = set(range(self.workers)) - places.keys()
        while not assignments.is_done:
            for worker in sorted(idle):
                place = self._place(assignments, worker)
                if place is None:
                    break
                idle.remove(worker)
                places[worker] = place
                heapq.heappush(self._busy, self._event(worker, jobs[place]))
            if idle and self._busy[0][0] > self._now + LOOK_S:
                self._now += LOOK_S  # the pool looks for slow jobs as well
                continue
            self._now, worker, key, dies = heapq.heappop(self._busy)
            place = places.pop(worker)
            if dies:
                if place is not None:
                    assignments.lose(place, "simulated", "")
                places[worker] = None
                restarted = (self._now + self.trouble.restart_s, worker, "", False)
                heapq.heappush(self._busy, restarted)
                continue
            idle.add(worker)
            self._early.add(key)
            if place is not None:
                assignments.finish(place)

    def _ahead(self, number: int, one: SimulatedRound, place: int) -> WorkerJob:
        """A job of the next round; in vain, if the next round leaves it out."""
        at, after = int(place * one.staying), int((place + 1) * one.staying)
        key = f"{number + 1}:{at}" if after > at else f"{number}: in vain {place}"
        group = f"{one.name} {place % one.groups}"
        return WorkerJob(one.name, group, one.seconds[0], is_ahead=True, key=key)

    def _place(self, assignments: Assignments, worker: int) -> int | None:
        taken = {group for other, group in self._group.items() if other != worker}
        groups = [{self._group.get(worker, "")}]
        place = assignments.take(groups, taken)
        if place is None:
            place = assignments.take_slow()
        return assignments.take(groups, taken, is_ahead=True) if place is None else place

    def _event(self, worker: int, job: WorkerJob) -> Event:
        """When a worker ends a job, or dies of something else."""
        trouble, rng = self.trouble, self.rng
        seconds = float(job.task) * rng.choice(trouble.spread)
        if rng.random() < trouble.slow_share:
            seconds *= trouble.slow_times
        seconds += trouble.overhead_s
        if self._group.get(worker) != job.group:
            seconds += trouble.opening_s
            self._group[worker] = job.group
        lives = rng.expovariate(1 / trouble.mtbf_s) if trouble.mtbf_s < float("inf") else None
        if lives is not None and lives < seconds:
            return self._now + lives, worker, job.key, True
        return self._now + seconds, worker, job.key, False


def doubled(first: int, most: int) -> Iterator[tuple[int, int]]:
    """The prompts of each round, as its first and last number; every round doubles them."""
    seen = 0
    while seen < most:
        upto = min(most, max(first, 2 * seen))
        yield seen, upto
        seen = upto
