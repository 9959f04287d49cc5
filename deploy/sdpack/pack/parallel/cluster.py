"""A build on a Ray cluster: workers share artifacts through a store, and get rows with each task.

The ledger stays with the driver. Of its rows, workers need only those that say how a graph is made;
scores are drawn only if they are missing.
"""

from __future__ import annotations

import os
import socket
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sdpack.engines.onnxruntime import keep_memory
from sdpack.errors import WorkerError
from sdpack.pack.mixed.sensitivity import KIND as SENSITIVITY
from sdpack.pack.parallel.build_worker import BuildWorker
from sdpack.pack.parallel.collected_ledger import CollectedLedger
from sdpack.pack.parallel.tasks import Task
from sdpack.pack.request import BuildRequest
from sdpack.pack.variants.compiler_trials import KIND as REFUSED_LAYERS
from sdpack.progress import Say
from sdpack.store.artifacts import CACHE_VARIABLE, REVISION, cache_folder
from sdpack.store.ledger import Ledger, Measurement
from sdpack.store.opening import SHARED_VARIABLE, open_store, shared_url
from sdpack.store.shared import SharedStore
from sdpack.version import __version__
from sdpack.workers.executor import Executor, WorkerOptions
from sdpack.workers.jobs import Handle, JobResult, WorkerJob
from sdpack.workers.ray_cluster import WorkerNeeds, connected
from sdpack.workers.ray_pool import RayPool

LEDGER_FILE = "ledger.sqlite"
SENT = (REFUSED_LAYERS, SENSITIVITY)


@dataclass(frozen=True)
class TaskWithRows:
    """A task, and the rows of the ledger that it may need."""

    task: Task
    rows: tuple[Measurement, ...]


@dataclass(frozen=True)
class OpenOnCluster:
    """Opens a request's toolchain in a worker on any machine of a cluster.

    Attributes:
        release: the version of sdpack and the revision of its artifacts, which must be the same.
        store: address of the shared store; None if all machines share the driver's cache.
        cache: folder of the driver's cache.
        token: a file in it, by which workers see that they share it.
    """

    request: BuildRequest
    release: tuple[str, int]
    store: str | None
    cache: Path
    token: str

    def __call__(self) -> Handle:
        """The worker's function for tasks with rows.

        Raises:
            WorkerError: this machine has another sdpack, no access to the artifacts, or lacks files
                of the catalog.
        """
        self._check()
        if self.store is None:
            os.environ[CACHE_VARIABLE] = str(self.cache)
        else:
            SharedStore(self.store).check()
        keep_memory()
        folder = tempfile.TemporaryDirectory(prefix="sdpack-ledger-")
        path = Path(folder.name) / LEDGER_FILE
        ledger = Ledger(path)
        worker = BuildWorker(self.request, open_store(self.store), CollectedLedger(path))

        def do(task: TaskWithRows, say: Say, _folder: object = folder) -> list[Measurement]:
            for row in task.rows:
                ledger.keep(row)
            return worker.do(task.task, say)

        return do

    def _check(self) -> None:
        machine = socket.gethostname()
        if self.release != release():
            here, driver = release(), self.release
            raise WorkerError(
                f"{machine} has sdpack {here[0]} (artifacts of revision {here[1]}), but the driver "
                f"has {driver[0]} ({driver[1]}); install the same version on all machines"
            )
        if self.store is None and not (self.cache / self.token).exists():
            raise WorkerError(
                f"{machine} does not share the cache {self.cache}; set {SHARED_VARIABLE} to an "
                "address that all machines reach"
            )
        located = self.request.located
        missing = [path for path in located.files() if not path.exists()]
        if missing:
            raise WorkerError(
                f"{machine} has no {missing[0]}, which the catalog names; put it at the same path "
                "on all machines, or name a hub repository"
            )


def release() -> tuple[str, int]:
    """The version of sdpack, and the revision of its artifacts."""
    return __version__, REVISION


@dataclass(frozen=True)
class SendingRows:
    """An executor that sends rows of the ledger along with each task."""

    pool: RayPool
    ledger: Path

    @property
    def has_gpus(self) -> bool:
        """Whether it gives a GPU to the jobs that need one."""
        return self.pool.has_gpus

    @property
    def is_cluster(self) -> bool:
        """Whether its workers may be on other machines."""
        return self.pool.is_cluster

    def run(self, jobs: Sequence[WorkerJob]) -> Iterator[JobResult]:
        """Do the jobs, and yield their results as they come.

        Raises:
            WorkerError: as in `RayPool.run`.
        """
        ledger = Ledger(self.ledger)
        try:
            rows = tuple(ledger.measurements(*SENT))
        finally:
            ledger.close()
        return self.pool.run([replace(job, task=TaskWithRows(job.task, rows)) for job in jobs])

    def rest(self) -> None:
        """Stop the workers; the next jobs start new ones."""
        self.pool.rest()


@contextmanager
def open_cluster(
    request: BuildRequest, workers: WorkerOptions, needs: WorkerNeeds, say: Say
) -> Iterator[Executor]:
    """An executor for the jobs of a request on a Ray cluster.

    Raises:
        MissingPackageError: Ray is not installed.
        WorkerError: the cluster cannot be used.
        StoreError: the shared store cannot be used.
    """
    cache, url = cache_folder(), shared_url()
    if url is not None:
        SharedStore(url).check()
    cache.mkdir(parents=True, exist_ok=True)
    token = cache / f"driver-{uuid.uuid4().hex}"
    token.touch()
    opening = OpenOnCluster(request, release(), url, cache.resolve(), token.name)
    try:
        with (
            connected(workers.address, workers.count),
            RayPool(opening, needs, workers.count, say) as pool,
        ):
            yield SendingRows(pool, cache / LEDGER_FILE)
    finally:
        token.unlink(missing_ok=True)
