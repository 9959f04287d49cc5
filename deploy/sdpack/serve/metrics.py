"""The metrics of a server, for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
STATM = Path("/proc/self/statm")
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one server.

    Args:
        batch: the most images drawn together.
        budget_bytes: the memory the bundle was built for.
        device_bytes: returns the bytes in use of the GPU; None without one.
    """

    def __init__(
        self, batch: int, budget_bytes: int, device_bytes: Callable[[], float] | None = None
    ) -> None:
        self._registry = CollectorRegistry()
        self._queue = Gauge(
            "sdpack_queue_depth", "Pictures accepted and not yet drawn.", registry=self._registry
        )
        self._batch = Histogram(
            "sdpack_batch_size",
            "Pictures per batch.",
            buckets=tuple(range(1, batch + 1)),
            registry=self._registry,
        )
        self._stages = Histogram(
            "sdpack_stage_seconds",
            "Seconds per stage: queue and write per picture, the others per batch.",
            ["stage"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._images = Counter("sdpack_images", "Pictures drawn.", registry=self._registry)
        self._failures = Counter(
            "sdpack_failures",
            "Pictures accepted but not drawn, by reason.",
            ["reason"],
            registry=self._registry,
        )
        self._answers = Counter(
            "sdpack_responses", "Responses, by status.", ["status"], registry=self._registry
        )
        self._ready = Gauge(
            "sdpack_ready", "1 when the engines are loaded and work.", registry=self._registry
        )
        memory = Gauge(
            "sdpack_memory_bytes",
            "Memory in use: of the host by this server, of its GPU by all processes.",
            ["of"],
            registry=self._registry,
        )
        memory.labels("host").set_function(resident_bytes)
        if device_bytes is not None:
            memory.labels("device").set_function(device_bytes)
        budget = Gauge(
            "sdpack_memory_budget_bytes",
            "The memory budget the bundle was built for.",
            registry=self._registry,
        )
        budget.set(budget_bytes)

    def queue_depth(self, depth: Callable[[], float]) -> None:
        self._queue.set_function(depth)

    def batch(self, size: int) -> None:
        self._batch.observe(size)

    def stage(self, name: str, seconds: float) -> None:
        self._stages.labels(name).observe(seconds)

    def drawn(self) -> None:
        self._images.inc()

    def failed(self, reason: str, count: int) -> None:
        self._failures.labels(reason).inc(count)

    def answered(self, status: int) -> None:
        self._answers.labels(str(status)).inc()

    def ready(self, is_ready: Callable[[], bool]) -> None:
        self._ready.set_function(lambda: float(is_ready()))

    def exposition(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self._registry)


def resident_bytes() -> float:
    """The resident memory of this process; 0 if the system does not report it."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0.0
