"""A pool of worker processes, each with its share of the machine's cores.

A worker that dies is replaced, and its job is done again.

Workers are started by this module and not by `multiprocessing`, which would run the main module of
the calling program again in each of them. They are in process groups of their own, so that Ctrl-C
reaches only the calling process, which then stops them; and they end when that process does.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait

from sdpack.domain.closing import Closing
from sdpack.engines.onnxruntime import THREADS_VARIABLE
from sdpack.errors import WorkerError
from sdpack.progress import Say
from sdpack.workers.assignments import Assignments
from sdpack.workers.jobs import JobResult, OpenHandle, WorkerJob

STOP_S = 5.0  # to end on its own, before a worker is killed
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", THREADS_VARIABLE)
WORKER_MODULE = "sdpack.workers.worker"


@dataclass(frozen=True)
class Said:
    """A line of progress from a worker."""

    line: str


class WorkerPool(Closing):
    """Worker processes that are started with the first jobs and stay until the pool is closed.

    Args:
        open_handle: makes each worker's `Handle`.
        count: number of workers.
        threads: CPU threads of each.
        say: receives the workers' lines of progress.
    """

    has_gpus = False
    is_cluster = False

    def __init__(self, open_handle: OpenHandle, count: int, threads: int, say: Say) -> None:
        self._open_handle = open_handle
        self._count = count
        self._threads = threads
        self._say = say
        self._workers: list[_Worker] = []

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        """Do the jobs, and yield their results as they come.

        Jobs of a group are done in their order, the earlier ones first. An iterator that is not
        used up stops the workers.

        Raises:
            WorkerError: three workers died at the same job, or a worker cannot be started.
        """
        assignments = Assignments(jobs)
        try:
            while not assignments.is_done:
                self._assign(assignments)
                for worker in self._ready():
                    result = self._received(worker)
                    if result is not None:
                        assignments.finish(result.place)
                        yield result
                    elif worker.ended:
                        self._bury(worker, assignments)
        except BaseException:
            self.close()
            raise

    def rest(self) -> None:
        """Stop the workers; the next jobs start new ones."""
        self.close()

    def close(self) -> None:
        """Stop the workers; the jobs they are doing are lost."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.wait()
        self._workers.clear()

    def _assign(self, assignments: Assignments) -> None:
        """Give a job to every worker that has none; start workers as long as there are jobs."""
        while len(self._workers) < min(self._count, assignments.waiting + self._busy):
            self._workers.append(_Worker(self._open_handle, self._threads))
        for worker in self._workers:
            if worker.place is None:
                taken = {other.group for other in self._workers if other is not worker}
                place = assignments.take([{worker.group}], taken)
                if place is not None:
                    worker.begin(place, assignments.jobs[place])

    @property
    def _busy(self) -> int:
        return sum(worker.place is not None for worker in self._workers)

    def _ready(self) -> list[_Worker]:
        """Wait for messages; the workers that sent one, or ended."""
        by_connection = {worker.connection: worker for worker in self._workers}
        busy = [c for c, worker in by_connection.items() if worker.place is not None]
        return [by_connection[c] for c in wait(busy) if isinstance(c, Connection)]

    def _received(self, worker: _Worker) -> JobResult | None:
        message = worker.receive()
        if isinstance(message, Said):
            self._say(message.line)
        return message if isinstance(message, JobResult) else None

    def _bury(self, worker: _Worker, assignments: Assignments) -> None:
        """Remove a worker that died; its job is done again.

        Raises:
            WorkerError: it is the third that died at this job.
        """
        assert worker.place is not None
        why = worker.wait()
        self._workers.remove(worker)
        assignments.lose(worker.place, why, "if memory was short, run with --workers 1")


class _Worker:
    """A worker process, and the job it does.

    Attributes:
        connection: carries jobs to it, and results and lines of progress back.
        place: the place of its job; None if it has none.
        group: the group of its last job; "" before the first.
        ended: whether the process ended, or is about to.
    """

    def __init__(self, open_handle: OpenHandle, threads: int) -> None:
        self.connection, remote = Pipe()
        self.place: int | None = None
        self.group = ""
        self.ended = False
        # The worker reads from this pipe until the other end is closed: by `wait`, or because
        # this process ended.
        alive, self._alive = os.pipe()
        # Closed by `wait`.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", WORKER_MODULE, str(remote.fileno()), str(alive)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=environment,
                pass_fds=(remote.fileno(), alive),
                start_new_session=True,
            )
        except OSError as cause:
            raise WorkerError(f"a worker process cannot be started: {cause.strerror}") from cause
        finally:
            remote.close()
            os.close(alive)
        self._send(open_handle)

    def begin(self, place: int, job: WorkerJob) -> None:
        """Send a job to the worker."""
        self.place, self.group = place, job.group
        self._send((place, job.task))

    def receive(self) -> Said | JobResult | None:
        """A message; None if the worker ended."""
        try:
            message: Said | JobResult = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.ended = True
            return None
        if isinstance(message, JobResult):
            self.place = None
        return message

    def stop(self) -> None:
        """Have the process end now."""
        self._process.kill() if self.place is not None else self.connection.close()

    def wait(self) -> str:
        """Wait until the process has ended, free its resources, and say how it ended."""
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self.connection.close()
        os.close(self._alive)
        with self._errors as errors:
            errors.seek(0)
            lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines()]
        words = f"signal {-status}" if status < 0 else f"exit status {status}"
        last = next((line for line in reversed(lines) if line), "")
        return f"{words}: {last}" if last else words

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # `receive` notices that it ended
            self.connection.send(message)
