"""A Ray cluster: connects to one, or starts one, and tells how many workers it has room for."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sdpack.errors import MissingPackageError, WorkerError

AUTO = "auto"
OBJECT_STORE_BYTES = 128 * 2**20  # tasks and results are small; artifacts are in the store
LISTEN_S = 5.0  # for a cluster to answer at its address
_ADDRESS = re.compile(r"(?:ray://)?(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d+)")
# Set before Ray is imported. Ray would print the deaths of its workers where results go.
RAY_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}


@dataclass(frozen=True)
class WorkerNeeds:
    """What each worker is promised.

    Attributes:
        threads: number of CPU threads.
        memory_bytes: memory.
    """

    threads: int
    memory_bytes: int


@dataclass(frozen=True)
class Node:
    """A machine of a cluster, and what Ray may use of it."""

    cpus: float
    gpus: float
    memory_bytes: float

    def holds(self, needs: WorkerNeeds, has_gpu: bool) -> int:
        """How many workers it has room for, with a GPU each or without.

        Workers without a GPU leave room for those with one, if both fit.
        """
        most = int(min(self.cpus // needs.threads, self.memory_bytes // needs.memory_bytes))
        with_gpu = min(most, int(self.gpus))
        return with_gpu if has_gpu else (most - with_gpu or most)


@contextmanager
def connected(address: str | None, workers: int | None = None) -> Iterator[None]:
    """Connect to a cluster; disconnects at the end.

    Args:
        address: such as "ray://head:10001", or "auto" for the cluster of this machine; None starts
            one on this machine, which ends with the connection.
        workers: the number of CPUs of a cluster that is started.

    Raises:
        MissingPackageError: Ray is not installed.
        WorkerError: the cluster cannot be reached, or runs another version of Ray or Python.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in RAY_SETTINGS.items()})
    try:
        import ray
    except ModuleNotFoundError as cause:
        raise MissingPackageError("ray", "ray", "--executor ray") from cause
    if address not in (None, AUTO):
        _check_listens(address)
    own: dict[str, Any] = {
        "address": "local",
        "num_cpus": workers,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    try:
        ray.init(
            **(own if address is None else {"address": address}),
            logging_level=logging.CRITICAL,
            log_to_driver=False,
        )
    except Exception as cause:  # Ray raises ConnectionError, RuntimeError, ValueError and others
        ray.shutdown()  # it may have connected before it refused
        raise WorkerError(_refused(address, _words(cause))) from cause
    try:
        yield
    finally:
        ray.shutdown()


def _check_listens(address: str) -> None:
    """Check an address; Ray itself would wait for it, for minutes or for ever.

    Raises:
        WorkerError: it is not an address, or nothing listens there.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise WorkerError(
            f"{address} is not the address of a Ray cluster; write it like ray://head:10001 or "
            f"head:6379, or {AUTO} for the cluster of this machine"
        )
    try:
        where = match["host"].strip("[]"), int(match["port"])
        with socket.create_connection(where, LISTEN_S):
            pass
    except (OSError, OverflowError) as cause:
        raise WorkerError(_refused(address, f"nothing listens there ({cause})")) from cause


def nodes() -> list[Node]:
    """The machines of the cluster that are alive."""
    import ray

    listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in listed if node["Alive"]]
    return [
        Node(*(float(each.get(name, 0)) for name in ("CPU", "GPU", "memory"))) for each in resources
    ]


def room(machines: Sequence[Node], needs: WorkerNeeds, has_gpu: bool) -> int:
    """How many workers a cluster has room for, with a GPU each or without."""
    return sum(node.holds(needs, has_gpu) for node in machines)


def _words(cause: Exception) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return " ".join(lines[:4]).rstrip(".") if lines else type(cause).__name__


def _refused(address: str | None, reason: str) -> str:
    if address is None:
        return f"Ray cannot be started on this machine: {reason}"
    return (
        f"the Ray cluster at {address} cannot be used: {reason}; check --address, and that all "
        "machines have the same versions of Ray, Python and sdpack"
    )
