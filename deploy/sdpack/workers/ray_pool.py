"""A pool of workers on the machines of a Ray cluster.

Each worker is a Ray actor, which Ray starts where CPUs, memory and, for drawing on a GPU, a GPU are
free. An actor or a machine that dies is replaced, and its job is done again. Artifacts are not sent
through Ray: the workers use a store that all machines share.
"""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sdpack.domain.closing import Closing
from sdpack.errors import WorkerError
from sdpack.progress import Say
from sdpack.workers.assignments import MOST_DEATHS, Assignments
from sdpack.workers.jobs import EARLIER, Handle, JobResult, OpenHandle, WorkerJob, done
from sdpack.workers.pool import THREAD_VARIABLES
from sdpack.workers.ray_cluster import WorkerNeeds, nodes, room

POLL_S = 1.0  # between looks for jobs that take too long
WAITING_S = 30.0  # between lines that say that no worker has started
REMEDY = "if memory was short, use machines with more, or fewer --workers"


class RayWorker:
    """A worker, on the side of the cluster."""

    def __init__(self, open_handle: OpenHandle) -> None:
        self._open_handle = open_handle
        self._handle: Handle | None = None

    def begin(self) -> str:
        """Open the handle; returns the name of the machine."""
        self._handle = self._open_handle()
        return socket.gethostname()

    def do(self, place: int, task: Any) -> tuple[JobResult, list[str]]:
        """Do a task; returns its result, and the lines of progress."""
        assert self._handle is not None
        lines: list[str] = []
        return done(self._handle, place, task, lines.append), lines


@dataclass
class _Worker:
    """A worker, on the side of the driver.

    Attributes:
        actor: Ray's handle of it.
        pending: what it was asked to do last.
        job: the job it does; None if it is idle, or begins.
        place: the place of this job; EARLIER if it is left over from an earlier run.
        machine: the machine it runs on; None as long as it begins.
        group: the group of its last job.
    """

    actor: Any
    has_gpu: bool
    pending: Any
    job: WorkerJob | None = None
    place: int = EARLIER
    machine: str | None = None
    group: str = ""

    @property
    def is_idle(self) -> bool:
        return self.machine is not None and self.job is None


@dataclass
class RayPool(Closing):
    """Workers on a cluster that this process is connected to.

    They start with the first jobs, and stay until the pool is closed.

    Attributes:
        has_gpus, is_cluster: always true.
        open_handle: makes each worker's `Handle`.
        needs: what each worker is promised.
        asked: the number of workers; None for as many as the cluster has room for.
        say: receives lines of progress.
    """

    open_handle: OpenHandle
    needs: WorkerNeeds
    asked: int | None
    say: Say
    has_gpus: bool = field(default=True, init=False)
    is_cluster: bool = field(default=True, init=False)
    _workers: list[_Worker] = field(default_factory=list, init=False)
    _failures: int = field(default=0, init=False)
    _waited_since: float | None = field(default=None, init=False)
    _groups: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set), init=False)

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        """Do the jobs, and yield their results as they come.

        Jobs ahead may still be done at the end. Their results come with those of the next run.

        Raises:
            WorkerError: three workers died at the same job, the cluster has no room for a worker,
                or a worker cannot begin.
        """
        assignments = Assignments(jobs)
        try:
            self._adopt(assignments)
            while not assignments.is_done:
                self._staff(assignments)
                self._assign(assignments)
                for worker in self._ready():
                    result = self._received(worker, assignments)
                    if result is None:
                        continue
                    if result.place == EARLIER or assignments.finish(result.place):
                        yield result
        except BaseException:
            self.close()
            raise
        self._leave()

    def _adopt(self, assignments: Assignments) -> None:
        """Find the jobs that workers do already, as they did them ahead."""
        for worker in self._workers:
            if worker.job is not None and worker.job.key:
                place = assignments.adopt(worker.job.key)
                worker.place = EARLIER if place is None else place

    def _leave(self) -> None:
        """Let workers do their jobs ahead; a second worker at a finished job ends."""
        self._release([w for w in self._workers if w.job is not None and not w.job.is_ahead])
        for worker in self._workers:
            worker.place = EARLIER

    def rest(self) -> None:
        """Stop the workers; the next jobs start new ones."""
        self.close()

    def close(self) -> None:
        """Stop the workers; the jobs they are doing are lost."""
        self._release(list(self._workers))

    def _release(self, workers: Sequence[_Worker]) -> None:
        import ray

        for worker in workers:
            self._workers.remove(worker)
            with suppress(Exception):  # its machine may be gone, or the whole cluster
                ray.kill(worker.actor)

    def _staff(self, assignments: Assignments) -> None:
        """Start workers as long as there are jobs for them, and room.

        Raises:
            WorkerError: there is no room for any.
        """
        for has_gpu in (False, True):
            waiting = assignments.waiting_for(has_gpu)
            of_kind = [worker for worker in self._workers if worker.has_gpu is has_gpu]
            busy = sum(worker.job is not None for worker in of_kind)
            if waiting and not any(worker.machine is not None for worker in of_kind):
                self._make_way(assignments, has_gpu)
            if len(of_kind) >= waiting + busy:
                continue
            most = self._most(has_gpu)
            for _ in range(min(most, waiting + busy) - len(of_kind)):
                self._workers.append(self._started(has_gpu))

    def _make_way(self, assignments: Assignments, has_gpu: bool) -> None:
        """End idle workers of the other kind, which may hold the CPUs that one of this kind needs.

        Args:
            has_gpu: the kind of the workers that cannot begin.
        """
        if not assignments.waiting_for(not has_gpu):
            self._release([w for w in self._workers if w.has_gpu is not has_gpu and w.is_idle])

    def _most(self, has_gpu: bool) -> int:
        """How many workers there may be, with a GPU or without.

        Raises:
            WorkerError: the cluster has no room for one.
        """
        if self.asked is not None:
            return self.asked
        most = room(nodes(), self.needs, has_gpu)
        if not most:
            gibibytes = self.needs.memory_bytes / 2**30
            raise WorkerError(
                f"no machine of the Ray cluster has {self.needs.threads} CPUs, "
                f"{'a GPU, ' if has_gpu else ''}and {gibibytes:.1f} GiB of memory for a worker; "
                "add a machine"
            )
        return most

    def _started(self, has_gpu: bool) -> _Worker:
        import ray

        threads = str(self.needs.threads)
        actor_class = ray.remote(RayWorker).options(
            num_cpus=self.needs.threads,
            num_gpus=int(has_gpu),
            memory=self.needs.memory_bytes,
            runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, threads)},
        )
        actor: Any = actor_class.remote(self.open_handle)
        return _Worker(actor, has_gpu, actor.begin.remote())

    def _assign(self, assignments: Assignments) -> None:
        for worker in self._workers:
            if worker.is_idle:
                self._give(worker, assignments)

    def _give(self, worker: _Worker, assignments: Assignments) -> None:
        """Give a job to an idle worker, or what another worker is slow at."""
        assert worker.machine is not None
        taken = {other.group for other in self._workers if other is not worker}
        groups = ({worker.group}, self._groups[worker.machine] - taken)
        place = assignments.take(groups, taken, worker.has_gpu)
        if place is None:
            place = assignments.take_slow(has_gpu=worker.has_gpu)
        if place is None:
            place = assignments.take(groups, taken, worker.has_gpu, is_ahead=True)
        if place is None:
            return
        job = assignments.jobs[place]
        worker.job, worker.place, worker.group = job, place, job.group
        self._groups[worker.machine].add(job.group)
        worker.pending = worker.actor.do.remote(place, job.task)

    def _ready(self) -> list[_Worker]:
        """Wait a moment; the workers that began, finished a job, or died."""
        import ray

        at_work = {worker.pending: worker for worker in self._workers if not worker.is_idle}
        if not at_work:
            time.sleep(POLL_S)
            return []
        try:
            ready, _ = ray.wait(list(at_work), num_returns=1, timeout=POLL_S)
        except Exception as cause:  # the connection to the cluster was lost
            raise WorkerError(f"the Ray cluster was lost: {_first_line(cause)}") from cause
        self._say_if_waiting()
        return [at_work[each] for each in ready]

    def _say_if_waiting(self) -> None:
        """Say now and then that no worker has started."""
        if any(worker.machine is not None for worker in self._workers):
            self._waited_since = None
        elif self._waited_since is None:
            self._waited_since = time.monotonic()
        elif time.monotonic() - self._waited_since > WAITING_S:
            self._waited_since = time.monotonic()
            gibibytes = self.needs.memory_bytes / 2**30
            self.say(
                f"waiting for the Ray cluster to start workers, each with {self.needs.threads} "
                f"CPUs and {gibibytes:.1f} GiB of memory"
            )

    def _received(self, worker: _Worker, assignments: Assignments) -> JobResult | None:
        """The result of a worker's job; None if it began, or died.

        Raises:
            WorkerError: it is the third worker that died at its job, or workers cannot begin.
        """
        import ray

        try:
            value = ray.get(worker.pending)
        except ray.exceptions.RayTaskError as cause:  # raised by the worker itself
            raise WorkerError(
                f"a worker cannot begin: {_first_line(cause.cause or cause)}"
            ) from cause
        except Exception as cause:
            self._bury(worker, assignments, _first_line(cause))
            return None
        self._failures = 0
        if worker.job is None:
            worker.machine = value
            return None
        place, worker.job, worker.place = worker.place, None, EARLIER
        result, lines = value
        for line in lines:
            self.say(line)
        assert isinstance(result, JobResult)
        return replace(result, place=place)

    def _bury(self, worker: _Worker, assignments: Assignments, why: str) -> None:
        """Remove a worker that died; its job is done again.

        Raises:
            WorkerError: it is the third that died at this job, or before its first.
        """
        self._release([worker])
        if worker.job is not None:
            if worker.place != EARLIER:
                assignments.lose(worker.place, why, REMEDY)
            return
        self._failures += 1
        if self._failures >= MOST_DEATHS:
            raise WorkerError(f"the Ray cluster cannot start workers: {why}")


def _first_line(cause: BaseException) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
