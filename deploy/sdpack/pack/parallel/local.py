"""The executor of a build: worker processes on this machine, how many, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdpack.engines.detect import memory_bytes
from sdpack.engines.onnxruntime import default_threads
from sdpack.export.checkpoint import MANY, Checkpoint
from sdpack.pack.candidates import Candidates
from sdpack.pack.forecast.build_plan import Planning
from sdpack.pack.forecast.stages import Stage
from sdpack.pack.parallel.build_worker import OpenBuild
from sdpack.pack.parallel.cluster import LEDGER_FILE, open_cluster
from sdpack.progress import Say
from sdpack.store.artifacts import cache_folder
from sdpack.store.ledger import Ledger
from sdpack.workers.executor import USUAL_WORKERS, Executor, ExecutorKind, OneProcess, WorkerOptions
from sdpack.workers.pool import WorkerPool
from sdpack.workers.ray_cluster import WorkerNeeds

PROCESS_BYTES = 2**30  # of a worker with PyTorch and its libraries, besides the models
FP32_BYTES = 4  # of a parameter
COPIES = 2  # of a part's weights while it is exported, calibrated or rounded
LEAST_S = 60.0  # of predicted work; two workers take ten seconds to start
SHARED_STAGES = {Stage.EXPORT, Stage.CALIBRATE, Stage.SENSITIVITY, Stage.ROUND, Stage.DRAW}
MEMORY_SHARE = 0.75  # of the machine's memory that all workers may take


@contextmanager
def open_executor(
    candidates: Candidates, workers: WorkerOptions = USUAL_WORKERS, say: Say = lambda _: None
) -> Iterator[Executor]:
    """An executor for the jobs of a request; its processes are stopped at the end.

    Args:
        workers: the workers to use. On this machine, without a number, there is only one where
            there is little to do.
        say: receives the workers' lines of progress.

    Raises:
        WorkerError: a Ray cluster cannot be used.
    """
    if workers.kind is ExecutorKind.RAY:
        needs = WorkerNeeds(1, worker_bytes(candidates))
        with open_cluster(candidates.request, workers, needs, say) as executor:
            yield executor
        return
    open_build = OpenBuild(candidates.request, cache_folder() / LEDGER_FILE)
    count = workers.count or worker_count(candidates)
    if count == 1 or (workers.count is None and not is_long(candidates, open_build.ledger)):
        yield OneProcess()
        return
    threads = max(1, default_threads() // count)
    with WorkerPool(open_build, count, threads, say) as pool:
        yield pool


def worker_count(candidates: Candidates) -> int:
    """How many workers the threads and the memory of this machine allow, at least one."""
    each = worker_bytes(candidates)
    return max(1, min(default_threads(), int(MEMORY_SHARE * memory_bytes() // each)))


def worker_bytes(candidates: Candidates) -> int:
    """The memory of one worker: it holds the largest mix in fp32, or prepares the largest part."""
    mixes = [
        [candidates.checkpoint(*part) for part in mixable.names.items()]
        for mixable in candidates.catalog.mixable()
    ]
    largest_mix = max(sum(part.parameters for part in parts) for parts in mixes)
    prepared = max(_prepared(part) for parts in mixes for part in parts)
    return PROCESS_BYTES + FP32_BYTES * max(largest_mix, prepared)


def _prepared(part: Checkpoint) -> int:
    """How many fp32 numbers are in memory while a part is exported, calibrated or rounded.

    The weights of a very large part without LoRAs stay in their files.
    """
    stays = part.parameters >= MANY and not part.loras
    return part.parameters if stays else COPIES * part.parameters


def is_long(candidates: Candidates, ledger_path: Path) -> bool:
    """Whether a build takes much longer than workers need to start, with everything to do."""
    ledger = Ledger(ledger_path)
    try:
        seconds = Planning(candidates, ledger).seconds()
    finally:
        ledger.close()
    shared = (each.middle for stage, each in seconds.items() if stage in SHARED_STAGES)
    return sum(shared) >= LEAST_S
